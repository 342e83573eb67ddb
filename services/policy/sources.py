"""What a policy service reads from files: directives, or what those on record are read by."""

from directive import signature, vocabulary_signature
from directive.book import BookError, load_book
from directive.entities import EntitiesError
from directive.evaluate import Evaluator
from directive.self_test import EngineUntrustworthy
from directive.signature import Signers
from directive.vocabulary import VocabularyError
from policy.applied import Applied
from policy.config import PolicySettings
from policy.documents import Documents
from registry.folding import Fold
from shared.following import Source
from shared.identity import SpiffeId
from shared.registry import Registry, TrustRoots
from shared.settings import SettingsError
from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError


def load(settings: PolicySettings) -> Applied:
    """Directives that are files, and what applies them; raises SettingsError. Never a part of them."""
    registry = registry_of(settings)
    assert settings.directives is not None, "asked only then"
    assert registry is not None, "the settings see to it"
    try:
        trust = _trust(settings)
        vocabulary = vocabulary_signature.load(
            settings.vocabulary_folder, trust.vocabulary_signers if trust else ()
        )
        book = load_book(settings.directives, vocabulary, registry, _signers(settings))
        return Applied(book, Evaluator(book, registry), registry)
    except BookError as error:
        reasons = "\n  ".join(error.reasons)
        raise SettingsError(f"the directives are not loaded:\n  {reasons}") from error
    except (VocabularyError, EntitiesError, EngineUntrustworthy) as error:
        raise SettingsError(f"the directives are not loaded: {error}") from error


def _trust(settings: PolicySettings) -> TrustRoots | None:
    return None if settings.trust_roots is None else TrustRoots.load(settings.trust_roots)


def _signers(settings: PolicySettings) -> Signers | None:
    """The keys that directives must be signed with; raises SettingsError."""
    try:
        return signature.required(_trust(settings))
    except TlogError as error:
        raise SettingsError(f"trust_roots: directive_signers: {error}") from error


def documents_of(settings: PolicySettings) -> tuple[Documents, Source]:
    """What reads the ledger's documents, and where they come from; raises SettingsError."""
    assert settings.trust_roots is not None, "the settings see to it"
    try:
        trust = TrustRoots.load(settings.trust_roots)
        vocabulary = vocabulary_signature.load(settings.vocabulary_folder, trust.vocabulary_signers)
        logs = [parse_log_vkey(key) for key in trust.log_verifier_keys]
        # Who may take part, and whose keys sign an owner's first document.
        registry = registry_of(settings) or Fold(
            trust.registry_signers, logs[0].name, trust.registrars
        )
        if trust.directive_signers is None:
            # Whoever can hand something in could write anybody's directives.
            raise SettingsError(
                "trust_roots: directive_signers is missing: the ledger's directives count by who signed them "
                "(an empty table where only keys that owners register are to count)"
            )
    except (VocabularyError, TlogError) as error:
        raise SettingsError(f"the ledger's documents cannot be followed: {error}") from error
    publisher = str(SpiffeId(settings.trust_domain, "service", "policy"))
    documents = Documents(vocabulary, _signers(settings), registry)
    return documents, Source(logs, publisher)


def registry_of(settings: PolicySettings) -> Registry | None:
    """Who takes part, where a file says so. Raises RegistryError."""
    return None if settings.registry is None else Registry.load(settings.registry)


def asking_agencies(settings: PolicySettings) -> tuple[str, ...]:
    """Agencies whose systems may ask over AuthZEN; raises SettingsError for one that nobody knows."""
    named = () if settings.authzen is None else settings.authzen.agencies
    registry = registry_of(settings)
    unknown = sorted(set(named) - registry.agencies.keys()) if registry is not None else ()
    if unknown:
        raise SettingsError(f"authzen.agencies: {unknown[0]} is not in the registry")
    return named
