# shellcheck shell=bash
#
# Folders with a Debian system in them, for script/matrix, script/package and
# script/check-docs, which source this after lib.sh.  They set
#   $folder     where it is
#   $suite      the Debian suite in it
#   $major      the version of PostgreSQL
#   $old        an older version to install as well, or nothing
#   $log        the file for the output of what is done there
# and $result then says what went wrong.

# shellcheck disable=SC2034,SC2154      # the scripts set and use them

old=''
beside=()                       # the words before a command that runs in a folder

# Which suite has which major.  This changes as Debian does.
suite_of() {
    case "$1" in
        15) echo bookworm ;;
        17) echo trixie ;;
        18) echo forky ;;
        19) echo experimental ;;
        *) die "no Debian suite is known to bring PostgreSQL $1 (see --help)" ;;
    esac
}

# open_cache PATH: the directory for the folders, in $cache, where only one
# script works at a time.
open_cache() {
    if [ "$(id -u)" -ne 0 ]; then
        die "debootstrap and chroot need root"
    fi
    need debootstrap command -v debootstrap
    need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
    install_packages
    mkdir -p "$1"
    cache=$(cd "$1" && pwd -P)
    exec 9>"$cache/lock"
    flock -n 9 || die "another $me is at work in $cache"
    export LC_ALL=C.UTF-8
}

step() {
    say "PostgreSQL $major: $*"
    printf '\n==> %s\n' "$*" >>"$log"
}

# Mounts and processes have namespaces of their own, and are gone when their
# first process is: no end of this script, not even kill -9, leaves any behind.
isolated() {
    run "${beside[@]}" unshare --mount --pid --fork --kill-child --mount-proc "$@" >>"$log" 2>&1 9>&-
}

# Runs a command in the folder.  The shell remains as the first process: it
# ignores a polite signal, so that the command has time to clean up.
in_folder() {
    # shellcheck disable=SC2016     # the inner shell's variables
    isolated sh -c '
        mount -t proc proc "$0/proc" &&
            mount --rbind /dev "$0/dev" &&
            mount -t tmpfs tmpfs "$0/dev/shm" &&
            chroot "$0" "$@"
        exit $?' "$folder" "$@"
}

apt_in_folder() {
    in_folder env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
}

# make_folder PACKAGE...: the folder with the bare system, and these PostgreSQL
# packages in it.  The file `complete` shows that an earlier run got to the end
# of this.
make_folder() {
    local base=$suite

    if [ -e "$folder/complete" ]; then
        return
    fi
    if [ "$suite" = experimental ]; then
        base=sid                # experimental is no system of its own
    fi
    step "making a folder with Debian $base"
    rm -rf --one-file-system "$folder"
    # All of Debian's suites share one script of debootstrap's, which may be
    # older than the suite and not know its name.  '': the default mirror.
    if ! isolated debootstrap --variant=minbase "$base" "$folder" '' sid; then
        result="no $base"
        return 1
    fi
    configure_folder
    step "installing PostgreSQL $major from $suite"
    if ! apt_in_folder update || ! in_folder apt-cache show "postgresql-$major"; then
        result="not in $suite"
        return 1
    fi
    if ! apt_in_folder install -y --no-install-recommends "$@"; then
        result="not installable"
        return 1
    fi
    apt_in_folder clean
    touch "$folder/complete"
}

configure_folder() {
    # No cluster is created, and no service started.
    mkdir -p "$folder/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' \
        >"$folder/etc/postgresql-common/createcluster.d/sw_guest_token.conf"
    printf '#!/bin/sh\nexit 101\n' >"$folder/usr/sbin/policy-rc.d"
    chmod 755 "$folder/usr/sbin/policy-rc.d"
    # Packages are fetched as this machine fetches them (proxies and the like).
    if command -v apt-config >/dev/null; then
        apt-config dump Acquire | grep -Ev 'IndexTargets|Changelogs|CompressionTypes' \
            >"$folder/etc/apt/apt.conf.d/90sw_guest_token"
    fi
    # From an older suite, take what the newer one no longer has.
    if [ -n "$old" ]; then
        sed "s/ $base / $(suite_of "$old") /" "$folder/etc/apt/sources.list" \
            >"$folder/etc/apt/sources.list.d/old.list"
    fi
    # From experimental, take only PostgreSQL.
    if [ "$suite" = experimental ]; then
        sed 's/ sid / experimental /' "$folder/etc/apt/sources.list" \
            >"$folder/etc/apt/sources.list.d/experimental.list"
        printf '%s\n' "Package: src:postgresql-$major src:postgresql-common" \
            'Pin: release a=experimental' 'Pin-Priority: 990' \
            >"$folder/etc/apt/preferences.d/sw_guest_token"
    fi
}

# The copy of the source tree, and what is needed to find other machines.
bring_tree() {
    rm -rf --one-file-system "$folder/sw_guest_token"
    cp -a --no-preserve=ownership "$tree" "$folder/sw_guest_token"
    cp -L /etc/resolv.conf /etc/hosts "$folder/etc/"
}

# must CMD...: what failed is at the end of the log.
must() {
    "$@" || { tail -n 40 "$log" >&2; die "${result:-failed}, see $log"; }
}

# copy_folder NAME [FROM]: from here on $folder is a copy of the one that
# make_folder made, or of another, with the tree.
copy_folder() {
    folder=$cache/$1
    rm -rf --one-file-system "$folder"
    cp -a "$cache/${2:-$major}" "$folder"
    bring_tree
    must apt_in_folder update
    must apt_in_folder clean
}

remove_folder() {
    rm -rf --one-file-system "$folder"
}
