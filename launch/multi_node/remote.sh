# What launch.multi_node runs on a host, through `ssh HOST sh -s`: these functions, then calls of
# them. Needs a POSIX shell, setsid and Linux's /proc. Every answer is a line with tabs between
# name, state, pid and words.
set -u
umask 077

say() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "${3:-}" "${4:-}"; }

# begun PID: when the kernel started it; nothing for one that has ended, reaped or not.
begun() {
    set -- $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null)
    [ "${1:-Z}" = Z ] || echo "${20}"
}

# running NAME: whether what we started still runs; sets pid. A number that the system has given to
# another process since is not ours.
running() {
    pid='' since=''
    [ -r "$1.pid" ] && read -r pid since < "$1.pid" && [ -n "$since" ] &&
        [ "$(begun "$pid")" = "$since" ]
}

# launch NAME SHARE THREADS COMMAND...: with THREADS, or the host's cores divided by SHARE.
launch() {
    name=$1 threads=$3
    [ "$threads" != auto ] || threads=$(($(nproc) / $2))
    [ "$threads" -gt 0 ] || threads=1
    shift 3
    if running "$name"; then return; fi
    OMP_NUM_THREADS=$threads setsid "$@" --config "$name.yaml" --set "threads=$threads" \
        --ready-fd 3 3> "$name.ready" >> "$name.log" 2>&1 < /dev/null &
    echo "$! $(begun $!)" > "$name.pid"
}

# await SECONDS NAME...: until each has said that it is ready, or why it is not.
await() {
    tenths=$(($1 * 10))
    shift
    for name; do
        while running "$name" && [ ! -s "$name.ready" ] && [ "$tenths" -gt 0 ]; do
            sleep 0.1
            tenths=$((tenths - 1))
        done
        show "$name"
    done
}

# show NAME: what is known of it.
show() {
    said=$(cat "$1.ready" 2>/dev/null)
    if ! running "$1"; then
        if [ ! -e "$1.pid" ]; then
            say "$1" stopped
        elif [ -n "$said" ] && [ "${said#*\"error\"}" != "$said" ]; then
            say "$1" failed '' "$said"
        else
            say "$1" died '' "$(tail -n 1 "$1.log" 2>/dev/null | tr '\t' ' ')"
        fi
    elif [ -n "$said" ]; then
        say "$1" ready "$pid" "$said"
    else
        say "$1" starting "$pid"
    fi
}

# signal SIGNAL NAME...: to those that run.
signal() {
    number=$1
    shift
    for name; do
        if running "$name"; then kill -s "$number" "$pid"; fi
    done
}

# halt HOW SECONDS NAME...: by SIGTERM; where HOW is "now", also by what ends a role that drains.
# Who has not ended in time is killed.
halt() {
    how=$1 tenths=$(($2 * 10)) seconds=$2
    shift 2
    signal TERM "$@"
    if [ "$how" = now ]; then
        sleep 0.2
        signal INT "$@"
    fi
    for name; do
        words=''
        while running "$name" && [ "$tenths" -gt 0 ]; do
            sleep 0.1
            tenths=$((tenths - 1))
        done
        if running "$name"; then
            words="had not ended after $seconds s, and was killed"
            while running "$name"; do
                kill -s KILL -- "-$pid" 2>/dev/null
                sleep 0.1
            done
        fi
        rm -f "$name.pid" "$name.ready"
        say "$name" stopped '' "$words"
    done
}

# names: of all that were started here, whatever file they were started from.
names() {
    for file in *.pid; do
        [ ! -e "$file" ] || printf '%s\n' "${file%.pid}"
    done
}

# logs LINES NAME...: the ends of their logs.
logs() {
    lines=$1
    shift
    for name; do
        tail -n "$lines" "$name.log" 2>&1 | sed "s/^/$name | /"
    done
}

# follow LINES NAME...: and what comes, until the connection ends.
follow() {
    lines=$1
    shift
    for name; do
        tail -n "$lines" -F --pid=$$ "$name.log" 2>&1 | sed -u "s/^/$name | /" &
    done
    cat > /dev/null
}
