#!/usr/bin/env bash
# Deploys the single-node overlay to a cluster and runs a search through it. Without a cluster it says so.
#   KUBECONFIG             the cluster; it must find the images
#   COUNTERSIGN_SERVICES   image of the services, by version or digest; as built by `make images` if left out
#   COUNTERSIGN_CONNECTOR  image of the connector
set -euo pipefail

needs() {
    cat <<'NEEDS'
It needs:
  KUBECONFIG             a cluster of Kubernetes 1.34 or later on which you may create a namespace, with a CNI that
                         enforces NetworkPolicies and a default StorageClass
  kubectl                in PATH, or as `make k8s-check` installs it
  COUNTERSIGN_SERVICES   image of the services that the nodes can pull (NAME:VERSION or NAME@sha256:...); left out,
                         countersign/services as `make images` builds it, which the nodes must then have
  COUNTERSIGN_CONNECTOR  likewise the connector's
It makes the namespace countersign, which must not be there, and leaves it to be looked at.
NEEDS
}

if [[ -z ${KUBECONFIG:-} ]]; then
    echo "SKIPPED: KUBECONFIG names no cluster; tests/k8s has run the same pods' commands on this machine."
    needs
    exit 0
fi
if ! command -v kubectl >/dev/null; then
    echo "There is no kubectl." >&2
    needs >&2
    exit 2
fi
if ! found=$(kubectl get namespace countersign --ignore-not-found --output name); then
    echo "The cluster of KUBECONFIG=$KUBECONFIG does not answer." >&2
    needs >&2
    exit 2
fi
# What is there may be somebody's record.
if [[ -n $found ]]; then
    echo "The cluster has a namespace countersign already. Remove it if it is of an earlier test." >&2
    exit 2
fi

readonly namespace=countersign
readonly here=.scratch/test-k8s
rm -rf "$here"
mkdir -p "$here"
cp -r deploy/k8s "$here/k8s"
readonly overlay=$here/k8s/overlays/single-node

image() {
    local name=$1 given=$2
    [[ -z $given ]] && return
    # A digest after @, or a version after the last colon.
    if [[ $given == *@* ]]; then
        printf -- '  - {name: %s, newName: %s, digest: "%s"}\n' "$name" "${given%@*}" "${given#*@}"
    else
        printf -- '  - {name: %s, newName: %s, newTag: "%s"}\n' "$name" "${given%:*}" "${given##*:}"
    fi
}
mkdir "$here/given"
{
    echo "apiVersion: kustomize.config.k8s.io/v1beta1"
    echo "kind: Kustomization"
    echo "resources: [../k8s/overlays/single-node]"
    chosen=$(image countersign/services "${COUNTERSIGN_SERVICES:-}"
             image countersign/connector "${COUNTERSIGN_CONNECTOR:-}")
    [[ -z $chosen ]] || printf 'images:\n%s\n' "$chosen"
} >"$here/given/kustomization.yaml"

in_namespace() {
    kubectl --namespace "$namespace" "$@"
}

run_by_hand() {
    in_namespace create job --from="cronjob/$1" "$1-$$"
    in_namespace wait --for=condition=complete --timeout=300s "job/$1-$$"
}

kubectl apply --server-side -f "$overlay/../../namespace/namespace.yaml"
countersign kubernetes trial --dir "$here/keys" | kubectl apply --server-side -f -
kubectl apply --server-side -k "$here/given"
run_by_hand ledger-begin
for workload in statefulset/nats statefulset/ledger deployment/policy deployment/broker statefulset/connector; do
    in_namespace rollout status --timeout=600s "$workload"
done
run_by_hand publish-directives
run_by_hand smoke
in_namespace logs "job/smoke-$$"
echo "A search went through the cluster. To remove it all: kubectl delete namespace $namespace"
