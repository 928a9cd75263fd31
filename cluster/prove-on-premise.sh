#!/usr/bin/env bash
# Bring cluster/on-premise.yaml up on this machine over SSH, sweep on it, and take it down again.
#
#   PATH="$PWD/.venv/bin:$PATH" cluster/prove-on-premise.sh [OPTION OF lorasweep tune]...
#
# Needs Debian, root, and the environment of lorasweep first on the PATH. It runs in process and
# network namespaces of its own, as if on a separate machine: `ray stop`, which Ray's launcher runs,
# finds no other Ray, the default ports are free, and the kernel ends whatever is left when the script
# exits. Only the Debian packages stay.
set -euo pipefail

NAME=lorasweep-proof

say() { printf '\n== %3ds  %s\n' "$SECONDS" "$*"; }
fail() {
  printf 'prove-on-premise: %s\n' "$*" >&2
  exit 1
}

outside() {
  local missing=() pair
  for pair in sshd:openssh-server rsync:rsync ip:iproute2 ss:iproute2 unshare:util-linux; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%:*}" > /dev/null || missing+=("${pair#*:}")
  done
  if ((${#missing[@]})); then
    say "installing ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}"
  fi

  # Ray puts sockets there, whose paths must be short.
  work=$(mktemp -d /tmp/lorasweep.XXXXXX)
  child=
  trap clean_up EXIT
  trap 'exit 130' INT TERM
  # Needed to build lorasweep; inside, no package index can be reached.
  python -m pip download --quiet --no-deps --dest "$work/wheels" 'setuptools>=77'
  # In the background, so that signals are handled at once.
  unshare --pid --net --fork --mount-proc --kill-child \
    cluster/prove-on-premise.sh --inside "$work" "$@" &
  child=$!
  wait "$child"
}

clean_up() {
  [[ -z $child ]] || kill -KILL "$child" 2> /dev/null || true
  wait
  # Ray keeps this cluster's SSH connections in a folder that cannot be configured.
  rm -rf "$work" "/tmp/ray_ssh_$(short "$(whoami)")/$(short "$NAME")"
  rmdir "/tmp/ray_ssh_$(short "$(whoami)")" 2> /dev/null || true
}

short() { printf %s "$1" | sha256sum | cut -c 1-10; }

inside() {
  local work=$1 bin site code message listening left
  shift
  local quiet=(--log-style pretty --log-color false)
  local remote=$work/remote cluster=$work/cluster.yaml results=$work/results
  local tune=(lorasweep tune --space lr,targets,rank --set train.steps=20
    --set search.confirm=0 --set evaluate.limit=20 "$@")
  ip link set lo up

  say "making an environment, a key and a token"
  # The libraries are those of this environment; lorasweep itself is installed by `ray up`.
  mkdir -p "$remote" "$work/client" "$work/stranger"
  touch "$remote/.bashrc"
  bin=$(dirname "$(command -v ray)")
  python -m venv "$remote/lorasweep-env"
  site='import sysconfig; print(sysconfig.get_path("purelib"))'
  python -c "$site" > "$("$remote/lorasweep-env/bin/python" -c "$site")/libraries.pth"
  sed "1s|.*|#!$remote/lorasweep-env/bin/python|" "$bin/ray" > "$remote/lorasweep-env/bin/ray"
  chmod +x "$remote/lorasweep-env/bin/ray"
  ssh-keygen -q -t ed25519 -N '' -f "$work/key"
  ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
  export HOME=$work/client RAY_TMPDIR=$work TMPDIR=$work RAY_AUTH_MODE=token
  unset RAY_ADDRESS RAY_API_SERVER_ADDRESS RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH
  ray get-auth-token --generate > /dev/null 2>&1

  say "starting an SSH server"
  mkdir -p /run/sshd
  cat > "$work/sshd_config" << END
ListenAddress 127.0.0.1
HostKey $work/host_key
AuthorizedKeysFile $work/key.pub
PasswordAuthentication no
StrictModes no
PidFile none
SetEnv HOME=$remote RAY_TMPDIR=$work PIP_NO_INDEX=1 PIP_FIND_LINKS=$work/wheels
END
  "$(PATH="$PATH:/usr/sbin" command -v sshd)" -D -e -f "$work/sshd_config" 2> "$work/sshd.log" &

  say "ray up"
  python - > "$cluster" << END
import sys, yaml
content = yaml.safe_load(open("cluster/on-premise.yaml", encoding="utf-8"))
content["cluster_name"] = "$NAME"
content["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
content["auth"] |= {"ssh_user": "$(whoami)", "ssh_private_key": "$work/key"}
yaml.safe_dump(content, sys.stdout, sort_keys=False)
END
  ray up -y "${quiet[@]}" "$cluster"

  say "ray exec: lorasweep is there, and the cluster is up"
  ray exec "${quiet[@]}" "$cluster" 'command -v lorasweep && ray status'

  say "a sweep on the head, without --address"
  ray exec "${quiet[@]}" "$cluster" "${tune[*]} --out $results --trials 1"
  ended 1

  say "resuming it from a client that has the token"
  "${tune[@]}" --out "$results" --trials 2 --address 127.0.0.1:6379
  ended 2

  say "a client without the token is refused"
  code=0
  message=$(stranger "$work" "${tune[@]}" --out "$work/refused" --address 127.0.0.1:6379) || code=$?
  refused "$code" "$message"

  say "the dashboard listens on loopback only, and answers through ray dashboard"
  listening=$(ss -Hltn 'sport = :8265' | awk '{print $4}')
  [[ $listening == 127.0.0.1:8265 ]] || fail "the dashboard listens on $listening"
  ray dashboard "$cluster" --port 8266 > "$work/dashboard.log" 2>&1 &
  timeout 60 bash -c 'until (exec 3<> /dev/tcp/127.0.0.1/8266) 2> /dev/null; do sleep 1; done'
  answers 401
  answers 200 "Authorization: Bearer $(cat "$HOME/.ray/auth_token")"

  say "resuming the sweep as a job through it"
  "${tune[@]}" --out "$results" --trials 3 --address http://127.0.0.1:8266
  ended 3
  code=0
  message=$(stranger "$work" "${tune[@]}" --address http://127.0.0.1:8266) || code=$?
  refused "$code" "$message"

  say "ray down"
  ray down -y "${quiet[@]}" "$cluster"
  left=$(pgrep -fa 'raylet|gcs_server|ray::|dashboard\.py|monitor\.py' || true)
  echo "left of Ray: ${left:-nothing}"
  say "done"
}

# Check that this many trials have ended, all of them complete.
ended() {
  python - "$1" "$(lorasweep status "$results" --json)" << 'END'
import json, sys
trials = json.loads(sys.argv[2])["trials"]
print("journal:", trials)
assert sum(trials.values()) == int(sys.argv[1]) and trials.keys() <= {"COMPLETE", "PRUNED"}
END
}

# Run a command without the token and print its stderr.
stranger() {
  local work=$1
  shift
  env -u RAY_AUTH_MODE HOME="$work/stranger" "$@" 2>&1 > /dev/null
}

refused() {
  printf 'exit code %s\n%s\n' "$1" "$2"
  [[ $1 == 2 ]] || fail "the exit code must be 2, got $1"
  [[ $(tail -n 1 <<< "$2") == "lorasweep: --address: "*"wants a token"* ]] ||
    fail "the last line must say that a token is wanted"
  [[ $2 != *Traceback* ]] || fail "there must be no traceback"
}

answers() {
  python - "$@" << 'END'
import sys, urllib.error, urllib.request
headers = dict(header.split(": ") for header in sys.argv[2:])
request = urllib.request.Request("http://127.0.0.1:8266/api/version", headers=headers)
try:
    code = urllib.request.urlopen(request, timeout=30).status
except urllib.error.HTTPError as error:
    code = error.code
print("with" if headers else "without", "the token: HTTP", code)
assert code == int(sys.argv[1]), code
END
}

cd "$(dirname "$0")/.."
if [[ ${1:-} == --inside ]]; then
  shift
  inside "$@"
else
  outside "$@"
fi
