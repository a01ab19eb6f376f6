#!/usr/bin/env bash
# Pretrain on CIFAR-10 with solo-learn, to be run in a checkout of it on a machine with a GPU:
#
#   cifar10.sh METHOD [VARIANT] [more of Hydra's overrides and options]
#
# METHOD: byol, mocov2plus, barlow_twins. VARIANT: w2 (the Wasserstein loss with the paper's weight, arXiv 2403.00642;
# the default), watched (the same readings and alerts, nothing added), plain (solo-learn as it is).
set -euo pipefail

method=${1:-} variant=${2:-w2}
shift $(($# < 2 ? $# : 2))
case $variant in
    w2 | watched | plain) ;;
    *) # an override, and no variant
        set -- "$variant" "$@"
        variant=w2
        ;;
esac
case $method in
    byol) config=byol weight=0.2 ;;
    mocov2plus) config=mocov2plus weight=1.0 ;;
    barlow_twins) config=barlow weight=linear:30:0 ;; # 30 at the start, 0 at the end of training
    *)
        sed -n '2,/^set/{/^#/p}' "$0" >&2
        exit 2
        ;;
esac

[ -f main_pretrain.py ] || { echo "no main_pretrain.py here: run it in a checkout of solo-learn" >&2; exit 2; }

keys=()
[ "$variant" = plain ] || keys+=(+uniformity.every_n_steps=50)
[ "$variant" != w2 ] || keys+=(+uniformity.auxiliary="$weight")

# Each variant under a name of its own: solo-learn resumes what has the same name, method and optimizer.
set -x
exec "${PYTHON:-python}" main_pretrain.py --config-path scripts/pretrain/cifar/ --config-name "$config.yaml" \
    name="$method-cifar10-$variant" wandb.enabled=False ${keys[@]+"${keys[@]}"} "$@"
