#!/bin/sh
# Install, upgrade or remove Shanmen on a machine without network.
#
#   ./install.sh agent|hub|all            install or upgrade; data and configuration stay as they are
#   ./install.sh --uninstall agent|hub|all   remove programs and units; data and configuration stay
#   ./install.sh --uninstall --purge …    remove data, keys and configuration too: what was not synced is lost
#
# Exit status: 0 done, 1 failed (nothing half-installed is started), 2 wrong arguments,
# 3 this machine is not supported.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
prefix=/opt/shanmen
etc=/etc/shanmen
units=/etc/systemd/system
action=install
purge=no
what=""

say() { printf '%s\n' "$*"; }
fail() { code=$1; shift; printf '%s\n' "$*" >&2; exit "$code"; }

for arg in "$@"; do
  case $arg in
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    agent|hub) what="$what $arg" ;;
    all) what="agent hub" ;;
    -h|--help) sed -n '2,10p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) fail 2 "unknown argument: $arg (install.sh --help)" ;;
  esac
done
[ -n "$what" ] || fail 2 "say what to $action: agent, hub or all (install.sh --help)"
[ "$purge" = no ] || [ "$action" = uninstall ] || fail 2 "--purge goes with --uninstall"
[ "$(id -u)" = 0 ] || fail 1 "run as root: users, units and $prefix belong to the system"

running_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; }

check_machine() {
  machine=$(uname -m)
  case $machine in
    x86_64|aarch64) ;;
    armv6l|armv7l|armhf|i686|i386)
      fail 3 "this machine is $machine (32 bit): several dependencies have no wheels for it; use a 64-bit system (aarch64 or x86_64)" ;;
    *) fail 3 "this machine is $machine: Shanmen supports x86_64 and aarch64" ;;
  esac
  [ "$machine" = "$(cat "$here/MACHINE")" ] || fail 3 "this bundle is for $(cat "$here/MACHINE"), this machine is $machine"
  python=""
  for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
       "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      python=$candidate; break
    fi
  done
  [ -n "$python" ] || fail 3 "needs Python 3.11, 3.12 or 3.13 with venv (Debian: python3 and python3-venv)"
}

make_user() {
  id "$1" >/dev/null 2>&1 || useradd --system --user-group --home-dir "/var/lib/$1" --no-create-home --shell /usr/sbin/nologin "$1"
}

# A new version is built beside the old one and takes its place by one rename of a link, so that a
# power cut in the middle leaves the old version whole.
install_programs() {
  version=$(cat "$here/VERSION")
  target=$prefix/versions/$version-$(date +%s)
  mkdir -p "$prefix/versions" "$prefix/bin" "$prefix/share/doc"
  "$python" -m venv "$target" || fail 1 "python venv failed: is python3-venv installed?"
  "$target/bin/python" -m pip install --quiet --no-index --find-links "$here/wheels" --only-binary :all: --require-hashes -r "$here/requirements.txt"
  "$target/bin/python" -m pip install --quiet --no-index --find-links "$here/wheels" --no-deps "shanmen==$version"
  "$target/bin/shanmen-agent" --version >/dev/null && "$target/bin/shanmen-hub" --version >/dev/null ||
    { rm -rf "$target"; fail 1 "the new version does not start; the installed one is untouched"; }
  old=$(readlink "$prefix/current" 2>/dev/null || true)
  ln -sfn "$target" "$prefix/current.new" && mv -T "$prefix/current.new" "$prefix/current"
  for name in shanmen shanmen-agent shanmen-hub; do ln -sfn "$prefix/current/bin/$name" "$prefix/bin/$name"; done
  cp "$here"/doc/*.md "$prefix/share/doc/"
  sync
  for other in "$prefix"/versions/*; do
    [ "$other" = "$target" ] || [ "$other" = "$old" ] || rm -rf "$other"
  done
}

install_service() {
  name=$1; user=shanmen-$name
  make_user "$user"
  install -d -m 0755 "$etc"
  install -d -m 0700 -o "$user" -g "$user" "/var/lib/$user"
  if [ ! -e "$etc/$name.toml" ]; then
    install -m 0640 -o root -g "$user" "$here/examples/$name.toml" "$etc/$name.toml"
    say "configuration: $etc/$name.toml (an example: edit it before the first start)"
  fi
  install -d "$units"
  install -m 0644 "$here/systemd/shanmen-$name.service" "$units/shanmen-$name.service"
  if running_systemd; then
    systemctl daemon-reload
    if systemctl is-active --quiet "shanmen-$name"; then systemctl restart "shanmen-$name"; fi
  fi
  say "installed: $prefix/bin/shanmen-$name, $units/shanmen-$name.service, data in /var/lib/$user"
}

remove_service() {
  name=$1; user=shanmen-$name
  if running_systemd; then systemctl disable --now "shanmen-$name" 2>/dev/null || true; fi
  rm -f "$units/shanmen-$name.service" "$prefix/bin/shanmen-$name"
  if running_systemd; then systemctl daemon-reload; fi
  if [ "$purge" = yes ]; then
    rm -rf "/var/lib/$user" "$etc/$name.toml"
    if id "$user" >/dev/null 2>&1; then userdel "$user"; fi
    say "removed with its data: shanmen-$name"
  else
    say "removed: shanmen-$name; data stays in /var/lib/$user, configuration in $etc"
  fi
}

if [ "$action" = install ]; then
  check_machine
  install_programs
  for name in $what; do install_service "$name"; done
else
  for name in $what; do remove_service "$name"; done
  if [ ! -e "$prefix/bin/shanmen-agent" ] && [ ! -e "$prefix/bin/shanmen-hub" ]; then rm -rf "$prefix"; fi
  if [ "$purge" = yes ]; then rmdir "$etc" 2>/dev/null || true; fi
fi
