# shellcheck shell=bash
#
# What the scripts beside this file share: they source it, and it is never run.
#
# All of them work on throw-away copies in one temporary directory: the source
# tree is copied there and built there, and so is the PostgreSQL installation,
# which finds its files relative to its own binaries.  `make install` goes into
# that copy and servers start from it, so the system's PostgreSQL, its clusters
# and the checkout stay as they are, and nothing needs root.
#
# PostgreSQL refuses to run as root.  If root runs a script, everything that
# builds or runs our code does so as an unprivileged user, by as_server_user.
#
# A script calls, in this order:
#   start_work                      the directory, and its removal at the end
#   need ...; install_missing       what must be on the machine
#   copy_tree                       the source tree, into $tree
#   copy_server; build_and_install  PostgreSQL, into $copy, with the extension
#   start_server [CONFIG-LINE...]   a server; sets PGHOST, PGPORT, PGUSER

set -euo pipefail
# shellcheck disable=SC2034      # some variables are for the scripts
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
me="${0##*/}"
work='' tree='' copy='' job=''
wanted=${PG_CONFIG:-}           # the caller's choice
pids=()                         # background processes to end
missing=()                      # packages that `need` found to be absent
major=''                        # the server's, as in its packages' names
admin=()                        # the words before a command for the administrator
updated=''                      # are the package lists fresh?
build_options=()                # make's, for the build
test_options=()                 # and for the tests
as_user=()                      # the words before a command for the server user

# The system's tools, whose Perl and Python know the system's packages.
export PATH="/usr/bin:/bin:/usr/sbin:/sbin:$PATH"

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

# Prints the comment that opens the calling script, for --help.
usage() {
    sed -n '3,/^$/ { s/^# \{0,1\}//p; }' "$0"
}

#
# The work directory and its end
#

start_work() {
    local base=${TMPDIR:-/tmp}

    # root's TMPDIR may be closed to the server's user.  A socket's path has
    # 107 bytes at most, and the tests nest theirs.
    if [ "$(id -u)" -eq 0 ] || [ ${#base} -gt 40 ] || [ ! -w "$base" ]; then
        base=/tmp
    fi
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    work=$(mktemp -d "$base/sw_guest_token.XXXXXX")
}

clean_up() {
    local status=$? pid file

    trap '' HUP INT TERM
    set +e
    allow_services
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    end_job
    cd /
    # Our own server and, after an interruption, those of the tests.
    while IFS= read -r -d '' file; do
        as_server_user "$bindir/pg_ctl" -D "${file%/*}" -m immediate stop \
            >/dev/null 2>&1
    done < <(find "$work" -name postmaster.pid -print0 2>/dev/null)
    rm -rf "$work"
    exit "$status"
}

# Ends the process group that `run` is waiting for, politely at first.
end_job() {
    if [ -z "$job" ]; then
        return
    fi
    kill -- "-$job"
    for _ in {1..50}; do
        kill -0 -- "-$job" || return
        sleep 0.1
    done 2>/dev/null
    kill -KILL -- "-$job"
}

# Runs a command as a process group of its own.  bash runs a trap only after a
# foreground command has ended, but interrupts `wait` for it, so that clean_up
# can end the whole group at once.
run() {
    local status=0

    set -m
    "$@" </dev/null &
    job=$!
    set +m
    wait "$job" || status=$?
    job=''
    return "$status"
}

# The same, but silent: the output is shown only if the command fails.
run_quietly() {
    if ! run "$@" >"$work/output" 2>&1; then
        cat "$work/output" >&2
        return 1
    fi
}

#
# Who runs what, and with which environment
#

# The caller's proxies, locale, PG* and make variables must not change what a
# server or a test does, but apt still needs them.
plain_environment() {
    local name

    for name in http_proxy https_proxy ftp_proxy all_proxy no_proxy \
        HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY \
        MAKEFLAGS MFLAGS MAKELEVEL MAKEFILES LANGUAGE TZ \
        "${!LC_@}" "${!PG@}"; do
        unset "$name"
    done
    export LANG=C.UTF-8 LC_ALL=C.UTF-8
}

# Decides who runs the server, and hands the work directory to that user.
choose_server_user() {
    local user group

    as_user=(env "HOME=$work" "TMPDIR=$work")
    if [ "$(id -u)" -eq 0 ]; then
        user=nobody
        if id postgres >/dev/null 2>&1; then
            user=postgres
        fi
        group=$(id -g "$user")
        as_user+=(setpriv "--reuid=$user" "--regid=$group" --init-groups)
        chown "$user:$group" "$work"
    fi
}

as_server_user() {
    "${as_user[@]}" "$@"
}

#
# What must be on the machine
#

# need PACKAGE CHECK...: notes the Debian package as missing unless the command
# CHECK succeeds.  CHECK looks for the thing itself, not for the package,
# because another package or a build from source may have brought it.
need() {
    if ! "${@:2}" >/dev/null 2>&1; then
        missing+=("$1")
    fi
}

# want PACKAGE CHECK...: the same for what we can do without: if we cannot
# install it, or Debian has none, it is not missing.
want() {
    if ! "${@:2}" >/dev/null 2>&1; then
        update_package_lists
        if [ ${#admin[@]} -gt 0 ] && apt-cache show "$1" >/dev/null 2>&1; then
            missing+=("$1")
        fi
    fi
}

has_headers() {
    echo '#include <stdio.h>' | gcc -E -
}

# Debian's file, or Red Hat's.
has_authorities() {
    test -e /etc/ssl/certs/ca-certificates.crt || test -e /etc/pki/tls/certs/ca-bundle.crt
}

# Without them valgrind does not start.
has_libc_symbols() {
    valgrind --quiet true
}

has_libfuzzer() {
    echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return 0; }' |
        clang -fsanitize=fuzzer,address -x c -o /dev/null -
}

has_python() {
    /usr/bin/python3 -c "import $1"
}

# A server's pg_config in $pg_config: the one that the user names in PG_CONFIG,
# else the newest complete installation, else the newest server.  /usr/bin's on
# Debian may be libpq's and know no server.
find_pg_config() {
    local candidate first=''

    pg_config=''
    if [ -n "$wanted" ]; then
        pg_config=$(command -v "$wanted") || die "PG_CONFIG: no such command: $wanted"
        return
    fi
    for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -rV) \
        "$(command -v pg_config || true)"; do
        if [ -x "$candidate" ] && [ -x "$("$candidate" --bindir)/postgres" ]; then
            first=${first:-$candidate}
            if has_development_files "$candidate"; then
                pg_config=$candidate
                return
            fi
        fi
    done
    pg_config=$first
}

has_server() {
    [ -n "$pg_config" ] && [ -x "$("$pg_config" --bindir)/initdb" ]
}

# Debian's packages are for Debian's servers; others have all they can get.
has_cron() {
    [ -n "$pg_config" ] &&
        { [ -f "$("$pg_config" --sharedir)/extension/pg_cron.control" ] ||
            [ "$("$pg_config" --bindir)" != "/usr/lib/postgresql/$major/bin" ]; }
}

has_hint_plan() {
    [ -n "$pg_config" ] &&
        { [ -f "$("$pg_config" --pkglibdir)/pg_hint_plan.so" ] ||
            [ "$("$pg_config" --bindir)" != "/usr/lib/postgresql/$major/bin" ]; }
}

has_pgxs() {
    [ -n "$pg_config" ] && has_development_files "$pg_config"
}

# PGXS alone is not enough: Debian has it in the package of the clients.
has_development_files() {
    [ -f "$("$1" --pgxs)" ] && [ -f "$("$1" --includedir-server)/postgres.h" ]
}

# What every script needs: a compiler, PostgreSQL, libcurl, json-c.
need_build() {
    find_pg_config
    need make command -v make
    need gcc command -v gcc
    need libc6-dev has_headers
    need pkg-config command -v pkg-config
    need libcurl4-openssl-dev pkg-config --exists libcurl
    need libjson-c-dev pkg-config --exists json-c
    if [ -n "$pg_config" ]; then
        major=$("$pg_config" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    else
        update_package_lists
        major=$(apt-cache depends postgresql 2>/dev/null |
            sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p')
    fi
    need "postgresql${major:+-$major}" has_server
    need "postgresql-server-dev-${major:-all}" has_pgxs
}

# What the tests and the sandbox need on top.
need_tests() {
    need perl command -v prove
    need libipc-run-perl perl -MIPC::Run -e 1
    need openssl command -v openssl
    need ca-certificates has_authorities
    need nginx-light command -v nginx
    need gettext command -v msgfmt
    want "postgresql-$major-cron" has_cron
    # Not all releases have it, but that is no reason to fetch the lists each
    # time.
    if apt-cache show "postgresql-$major-pg-hint-plan" >/dev/null 2>&1; then
        want "postgresql-$major-pg-hint-plan" has_hint_plan
    fi
    need_sandbox
}

# What fuzzing needs: clang and its run-time libraries, and a static json-c.
need_fuzzer() {
    need clang has_libfuzzer
    need libclang-rt-dev has_libfuzzer
    need libc6-dev has_headers
    need pkg-config command -v pkg-config
    need libjson-c-dev pkg-config --exists json-c
}

need_sandbox() {
    need python3 command -v python3
    need python3-aiohttp has_python aiohttp
    need python3-jwcrypto has_python jwcrypto
}

# After install_missing: the server that everything else uses.
require_server() {
    find_pg_config
    has_server || die "missing: a PostgreSQL server (PG_CONFIG can name its pg_config)"
    has_pgxs || die "missing: the development files of $("$pg_config" --version)"
    bindir=$("$pg_config" --bindir)
}

# Installs what `need` noted, or says in one line what is missing.  What comes
# after this call is for the server and its user.
install_missing() {
    install_packages
    plain_environment
    choose_server_user
}

install_packages() {
    if [ ${#missing[@]} -gt 0 ]; then
        update_package_lists
        if [ ${#admin[@]} -eq 0 ]; then
            die "missing, as Debian calls it: ${missing[*]} (install these packages, or run as root)"
        fi
        say "Installing ${missing[*]}"
        forbid_services
        apt_get install -y --no-install-recommends "${missing[@]}" ||
            die "could not install ${missing[*]}"
        allow_services
    fi
}

# Finds out how packages are installed here: the words to put before such a
# command go into $admin, none if we cannot install any.  Then fetches apt's
# lists, once.
update_package_lists() {
    if [ -n "$updated" ]; then
        return 0
    fi
    updated=yes
    if ! command -v apt-get >/dev/null; then
        return 0
    elif [ "$(id -u)" -eq 0 ]; then
        admin=(env)
    elif command -v sudo >/dev/null &&
        { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }; then
        admin=(sudo env)
    else
        return 0
    fi
    say "Updating the package lists"
    # Lists that are there already may do if this fails.
    apt_get update || say "Could not update the package lists, going on without"
}

# apt-get without questions; its output is shown if it fails.  No services, such
# as those that use libc, are restarted on the way.
apt_get() {
    "${admin[@]}" DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -o DPkg::Lock::Timeout=300 "$@" \
        </dev/null >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; return 1; }
}

# Debian's postgresql-N starts the cluster that it creates, and so may other
# packages start their services.  A file prevents that while we install.  The
# cluster is still created: a user who installed PostgreSQL again, as README.md
# says, would get none, because the package is there already.
policy=/usr/sbin/policy-rc.d
forbidden=''

forbid_services() {
    if [ ! -e "$policy" ]; then
        forbidden=yes
        printf '#!/bin/sh\nexit 101\n' | "${admin[@]}" tee "$policy" >/dev/null
        "${admin[@]}" chmod 755 "$policy"
    fi
}

allow_services() {
    if [ -z "$forbidden" ]; then
        return
    fi
    "${admin[@]}" rm -f "$policy"
    forbidden=''
}

#
# The copies
#

# Copies the source tree into $tree: what git knows or would add, or without git
# all but what a build has left.
copy_tree() {
    tree=$work/tree
    as_server_user mkdir "$tree"
    if [ -e "$root/.git" ] && command -v git >/dev/null; then
        (cd "$root" && list_files | tar -c --null -T -)
    else
        tar -C "$root" -c --exclude=./.git --exclude='*.o' --exclude='*.so' \
            --exclude='*.bc' --exclude=./tmp_check --exclude=./results --exclude=./coverage .
    fi | as_server_user tar -C "$tree" -x --no-same-owner
    cd "$tree"
}

# The checkout may belong to somebody else; git lists deleted files as well.
list_files() {
    local file

    git -c safe.directory="$root" ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            if [ -e "$file" ] || [ -L "$file" ]; then
                printf '%s\0' "$file"
            fi
        done
}

# Copies the PostgreSQL installation into $copy, every directory at its own
# path, so that they find one another as before.  From here on $pg_config is the
# copy's.
copy_server() {
    local option dir program

    require_server
    copy=$work/pg
    say "Copying $("$pg_config" --version) to a temporary directory"
    as_server_user mkdir -p "$copy$bindir"
    # The directory may be /usr/bin: take only what is PostgreSQL's.
    for program in "$bindir"/{postgres,initdb,psql,pg_*,pgbench,create{db,user},drop{db,user},vacuumdb}; do
        if [ -x "$program" ]; then
            as_server_user cp -L "$program" "$copy$bindir"
        fi
    done
    for option in pkglibdir sharedir; do
        dir=$("$pg_config" "--$option")
        as_server_user mkdir -p "$copy$dir"
        as_server_user cp -a "$dir/." "$copy$dir"
    done
    # Headers are only read.
    for option in includedir pkgincludedir includedir-server; do
        dir=$("$pg_config" "--$option")
        if [ ! -e "$copy$dir" ]; then
            as_server_user mkdir -p "$copy${dir%/*}"
            as_server_user ln -s "$dir" "$copy$dir"
        fi
    done
    bindir=$copy$bindir
    pg_config=$bindir/pg_config
    case $("$pg_config" --pkglibdir) in
        "$copy"/*) ;;
        *) die "this PostgreSQL cannot be copied: it looks for its files in $("$pg_config" --pkglibdir)" ;;
    esac
}

build_and_install() {
    say "Building, and installing into the copy"
    run_quietly as_server_user make -s -j"$(nproc)" PG_CONFIG="$pg_config" "${build_options[@]}" all install ||
        die "the build failed"
}

# wrap_server WORD...: puts these words before every command that starts a
# server from the copy, but not before initdb's and those that only answer a
# question.
wrap_server() {
    as_server_user mv "$bindir/postgres" "$bindir/postgres.bin"
    as_server_user tee "$bindir/postgres" >/dev/null <<WRAPPER
#!/bin/sh
case "\$1 \$2 \$3" in
    -V* | --version* | --boot* | --check* | '--single -F -O'*) exec "\$0.bin" "\$@" ;;
esac
exec$(printf " '%s'" "$@") "\$0.bin" "\$@"
WRAPPER
    as_server_user chmod 755 "$bindir/postgres"
}

# start_server [CONFIG-LINE...]: a server that only $work/.s.PGSQL.5432 reaches.
start_server() {
    local data=$work/data

    say "Starting a throw-away PostgreSQL"
    run_quietly as_server_user "$bindir/initdb" -D "$data" -U postgres -A trust \
        -E UTF8 --locale=C.UTF-8 --no-sync || die "initdb failed"
    printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$work'" \
        'fsync = off' "$@" | as_server_user tee -a "$data/postgresql.conf" >/dev/null
    if ! run_quietly as_server_user "$bindir/pg_ctl" -D "$data" -l "$work/server.log" \
        -o '-p 5432' -w start; then
        tail -n 20 "$work/server.log" >&2
        die "PostgreSQL did not start"
    fi
    export PGHOST=$work PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}

# start_listener NAME PROGRAM [ARG...]: starts a Python program, which says
# "listening on URL" when it is ready.  Leaves that in $url, and what the program
# says on standard error in $work/NAME.log.
start_listener() {
    local line

    : >"$work/$1.out"                   # the program may be slow to create it
    "${as_user[@]}" /usr/bin/python3 "${@:2}" \
        >"$work/$1.out" 2>"$work/$1.log" </dev/null &
    pids+=($!)
    for _ in {1..100}; do
        line=$(cat "$work/$1.out")
        if [ "${line#listening on }" != "$line" ]; then
            # shellcheck disable=SC2034     # for the script
            url=${line#listening on }
            return
        fi
        kill -0 "${pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/$1.log" >&2
    die "the $1 did not start"
}

# Runs `make installcheck` on the running server, with the caller's REGRESS,
# PROVE_TESTS and PROVE_FLAGS.  As many TAP tests run at once as there are
# processors.
run_tests() {
    run as_server_user make -s installcheck PG_CONFIG="$pg_config" ${REGRESS:+"REGRESS=$REGRESS"} \
        PROVE_FLAGS="--jobs=$(nproc) --state=save --statefile=$work/prove ${PROVE_FLAGS:-}" "${test_options[@]}"
}

# Shows what failed tests have left behind.
show_failures() {
    local file test shown=''

    if [ -s regression.diffs ]; then
        say "regression.diffs"
        head -n 200 regression.diffs
    fi
    # prove writes down a test's name, and then whether it failed.  Of one that gave
    # up (BAIL_OUT) it knows no end.
    while read -r test; do
        file=tmp_check/log/regress_log_$(basename "$test" .pl)
        if [ -f "$file" ]; then
            shown=yes
            say "The end of $file"
            tail -n 40 "$file"
        fi
    done < <(awk '/^  [^ ]/ { name = $1; sub(/:$/, "", name) }
        /^    last_(result: [^0]|run_time: ~)/ { print name }' "$work/prove" 2>/dev/null)
    if [ -z "$shown" ] && [ ! -s regression.diffs ]; then
        say "The end of the server's log"
        tail -n 40 "$work/server.log"
    fi
}
