#!/usr/bin/env bash
# A real SLURM on this machine's loopback, for tests: munge, MariaDB + slurmdbd, slurmctld, four slurmd. Debian, root.
#
#   cluster.sh up                       install what is missing, start what is down, wait until all of it works
#   cluster.sh down                     stop everything; with PURGE=1 remove BASE as well
#   cluster.sh node-down NAME [quiet]   a power cut: the node and its jobs are gone at once. SLURM is told, so that it
#                                       acts now; `quiet` leaves it to find out (SlurmdTimeout: half a minute)
#   cluster.sh node-up NAME             bring a node back and wait until it takes jobs
#   cluster.sh stop DAEMON [now]        munged, mariadbd, slurmdbd or slurmctld; `now`: kill -9
#   cluster.sh start DAEMON             start it (or wake it, if it was frozen) and wait until it answers
#
# Everything lives below BASE. Nothing is written outside but Debian's packages and the user USER_NAME; clients find the
# cluster by SLURM_CONF=$BASE/etc/slurm.conf alone. Several clusters may run side by side, each in its BASE.
# Exit code 77: this machine cannot carry a cluster (standard error says why). 1: it should, but something failed.
set -euo pipefail

BASE=${BASE:-${TMPDIR:-/tmp}/cem-slurm}
ACCT=${ACCT:-dbd}                      # dbd, or none: then no MariaDB and no sacct
CPU_NODES=${CPU_NODES:-2}              # c1 c2 …
GPU_NODES=${GPU_NODES:-2}              # g1 g2 …
GPUS=2 CPUS=8 MEMORY_MB=4000           # of a node; more than the machine has is fine
MIN_JOB_AGE=${MIN_JOB_AGE:-300}        # seconds until squeue forgets an ended job
GRACE=${GRACE:-20}                     # seconds from the signal to the end of a job preempted in `scavenge`
USER_NAME=${USER_NAME:-cemtest}        # who submits without being root
ACCOUNT=ci
export SLURM_CONF=$BASE/etc/slurm.conf PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOST=$(hostname -s)

say() { printf '[cluster %3d s] %s\n' "$SECONDS" "$*"; }
cannot() { printf 'cluster.sh: %s\n' "$*" >&2; exit 77; }
fail() { printf 'cluster.sh: %s\n' "$*" >&2; exit 1; }

# fail_at DAEMON MESSAGE: with the end of its log
fail_at() {
    printf 'cluster.sh: %s. See %s; the last lines of it:\n' "$2" "$BASE/log/$1.log and $1.out" >&2
    tail -q -n 8 "$BASE/log/$1.out" "$BASE/log/$1.log" >&2 2>/dev/null || true
    exit 1
}

check_base() {
    [[ $BASE =~ ^/[A-Za-z0-9._/-]+$ ]] || fail "BASE must be an absolute path of plain characters, found '$BASE'"
    [ ${#BASE} -le 70 ] || fail "BASE is too long for the sockets below it (70 characters at most): $BASE"
    [ ! -e "$BASE" ] || [ -e "$BASE/.cluster" ] || [ -z "$(ls -A "$BASE")" ] || fail "$BASE exists and holds something else"
}

# --- processes: a pid counts only with the start time it had, since pids recur -----------------------------------------
birth() { # nothing for a process that has ended, reaped or not
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    read -ra stat <<<"${stat##*) }"
    [ "${stat[0]}" = Z ] || echo "${stat[19]}"
}
pid_of() {
    local pid born
    read -r pid born 2>/dev/null <"$BASE/run/$1.pid" && [ -n "$born" ] && [ "$(birth "$pid")" = "$born" ] && echo "$pid"
}

# launch NAME COMMAND…: in a session of its own and an environment of its own; nothing of the caller's stays open
launch() {
    local name=$1 pid
    shift
    env -i PATH="$PATH" SLURM_CONF="$SLURM_CONF" setsid "$@" </dev/null >>"$BASE/log/$name.out" 2>&1 &
    pid=$!
    echo "$pid $(birth "$pid")" >"$BASE/run/$name.pid"
}

# halt NAME [KILL]: ends when the process has ended
halt() {
    local pid
    pid=$(pid_of "$1") || { rm -f "$BASE/run/$1.pid"; return 0; }
    kill -CONT "$pid" 2>/dev/null || true
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
        pid_of "$1" >/dev/null || break
        sleep 0.1
    done
    if pid_of "$1" >/dev/null; then kill -KILL "$pid"; sleep 0.5; fi
    ! pid_of "$1" >/dev/null || fail "$1 (process $pid) does not end"
    rm -f "$BASE/run/$1.pid"
}

wake() { # a test may have frozen it (SIGSTOP)
    local pid
    if pid=$(pid_of "$1"); then kill -CONT "$pid"; fi
}

# until_answers DAEMON SECONDS COMMAND…
until_answers() {
    local name=$1 seconds=$2 end=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        pid_of "$name" >/dev/null || fail_at "$name" "$name has ended"
        [ "$SECONDS" -lt "$end" ] || fail_at "$name" "$name does not answer after $seconds s"
        sleep 0.1
    done
}

# --- packages ----------------------------------------------------------------------------------------------------------
install_packages() {
    local package policy=/usr/sbin/policy-rc.d ours='' log missing=()
    local needed=(slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins)
    [ "$ACCT" = none ] || needed+=(slurmdbd slurm-wlm-mysql-plugin mariadb-server)
    for package in "${needed[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    log=$BASE/log/apt.log
    # Debian would start the daemons it installs
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; ours=yes; }
    local install=(env DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq --no-install-recommends "${missing[@]}")
    "${install[@]}" >"$log" 2>&1 || { timeout 120 apt-get update -qq && "${install[@]}"; } >>"$log" 2>&1 || missing=(failed)
    [ -z "$ours" ] || rm -f $policy
    [ "${missing[0]}" != failed ] || { tail -n 3 "$log" >&2; cannot "SLURM's Debian packages cannot be installed here"; }
}

# --- configuration -----------------------------------------------------------------------------------------------------
# A block where nobody listens: slurmctld, slurmdbd, MariaDB, and from 10 on a port a node. Where the search begins depends
# on BASE, so that clusters brought up at the same time look at different blocks
choose_ports() {
    local port offset first=$(($(cksum <<<"$BASE" | cut -d ' ' -f 1) % 40 * 50))
    if [ -z "${PORT0:-}" ] && [ -s "$BASE/port0" ]; then PORT0=$(<"$BASE/port0"); fi
    if [ -z "${PORT0:-}" ]; then
        for port in $(seq 0 50 1950); do
            port=$((17000 + (first + port) % 2000))
            for offset in $(seq 0 $((9 + CPU_NODES + GPU_NODES))); do
                if (exec 3<>"/dev/tcp/127.0.0.1/$((port + offset))") 2>/dev/null; then continue 2; fi
            done
            PORT0=$port
            break
        done
    fi
    [ -n "${PORT0:-}" ] || fail "no free ports from 17000 to 19000 on 127.0.0.1"
    echo "$PORT0" >"$BASE/port0"
}

nodes() { # every node's name
    local i
    for i in $(seq "$CPU_NODES"); do echo "c$i"; done
    for i in $(seq "$GPU_NODES"); do echo "g$i"; done
}

accounting_conf() {
    if [ "$ACCT" = none ]; then
        printf 'AccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/filetxt\nJobCompLoc=%s\n' "$BASE/log/jobcomp.txt"
        return
    fi
    cat <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT0 + 1))
# the munge socket, not a password
AccountingStoragePass=$BASE/munge/sock
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits,qos,wckeys
JobCompType=jobcomp/none
CONF
}

node_conf() {
    local name port=$((PORT0 + 9)) gpus
    for name in $(nodes); do
        port=$((port + 1))
        gpus=''
        [ "${name:0:1}" = c ] || gpus=" Gres=gpu:fake:$GPUS"
        echo "NodeName=$name NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$port CPUs=$CPUS RealMemory=$MEMORY_MB$gpus State=UNKNOWN"
    done
    # name, nodes, priority, further
    partition() { echo "PartitionName=$1 Nodes=$2 PriorityTier=$3 MaxTime=24:00:00 DefaultTime=10 DefMemPerCPU=200 State=UP ${4:-}"; }
    partition cpu "c[1-$CPU_NODES]" 10 Default=YES
    partition gpu "g[1-$GPU_NODES]" 10
    partition urgent "g[1-$GPU_NODES]" 20
    partition scavenge "g[1-$GPU_NODES]" 1 "GraceTime=$GRACE"
}

slurm_conf() {
    cat <<CONF
ClusterName=ci
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits: 120 s if unset; below 5 is silently not taken
AuthInfo=socket=$BASE/munge/sock,cred_expire=5
# loopback only
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$BASE/spool/ctld
SlurmdSpoolDir=$BASE/spool/%n
SlurmctldPidFile=$BASE/run/slurmctld.own
SlurmdPidFile=$BASE/run/slurmd-%n.own
SlurmctldLogFile=$BASE/log/slurmctld.log
SlurmdLogFile=$BASE/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=10
InactiveLimit=0
KillWait=5
MinJobAge=$MIN_JOB_AGE
MessageTimeout=30
WaitTime=0
CompleteWait=0
JobRequeue=1
MaxArraySize=1001
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# nodes with more CPUs than the machine has
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_interval=2,sched_min_interval=100000
# no cgroups: memory is watched once a second
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
# a preempted job gets the signal it asked for (submitit: USR2) where its partition has a GraceTime, not SIGTERM
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
$(accounting_conf)
$(node_conf)
CONF
}

gres_conf() {
    local name i
    for i in $(seq 0 $((GPUS - 1))); do
        # character devices: with plain files SLURM leaves CUDA_VISIBLE_DEVICES unset
        [ -e "$BASE/dev/nvidia$i" ] || mknod "$BASE/dev/nvidia$i" c 1 3 || cannot "no device node can be made in $BASE/dev (mknod)"
    done
    for name in $(nodes); do
        [ "${name:0:1}" = c ] || echo "NodeName=$name Name=gpu Type=fake File=$BASE/dev/nvidia[0-$((GPUS - 1))]"
    done
}

slurmdbd_conf() {
    cat <<CONF
AuthType=auth/munge
AuthInfo=socket=$BASE/munge/sock
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT0 + 1))
SlurmUser=root
CommunicationParameters=NoInAddrAny
LogFile=$BASE/log/slurmdbd.log
PidFile=$BASE/run/slurmdbd.own
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT0 + 2))
StorageUser=slurm
StoragePass=ci
StorageLoc=slurm_acct_db
CONF
}

write_conf() {
    slurm_conf >"$BASE/etc/slurm.conf.new"
    gres_conf >"$BASE/etc/gres.conf"
    (umask 077 && slurmdbd_conf >"$BASE/etc/slurmdbd.conf")
    if [ -s "$SLURM_CONF" ] && ! cmp -s "$SLURM_CONF" "$SLURM_CONF.new"; then
        say "other settings than before: restarting"
        stop_all TERM
    fi
    mv "$SLURM_CONF.new" "$SLURM_CONF"
}

# --- daemons -----------------------------------------------------------------------------------------------------------
sql() { timeout 5 mariadb --no-defaults -uroot -S "$BASE/mysql/sock" "$@"; }
munge_works() { timeout 5 munge -S "$BASE/munge/sock" -n | timeout 5 unmunge -S "$BASE/munge/sock"; }
controller_works() { timeout 5 scontrol ping | grep -q 'is UP'; }

start_munged() {
    local folder=$BASE/munge
    mkdir -p "$folder"
    [ -s "$folder/key" ] || head -c 1024 /dev/urandom >"$folder/key"
    chown -R munge:munge "$folder"
    chmod 755 "$folder"
    chmod 400 "$folder/key"
    pid_of munged >/dev/null || {
        rm -f "$folder"/sock*
        launch munged setpriv --reuid=munge --regid=munge --clear-groups munged --foreground --key-file="$folder/key" \
            --socket="$folder/sock" --pid-file="$folder/pid" --log-file="$folder/log" --seed-file="$folder/seed"
    }
    until_answers munged 20 munge_works
}

start_mariadbd() {
    local folder=$BASE/mysql
    if [ ! -e "$folder/made" ]; then
        rm -rf "$folder"
        install -d -o mysql -g mysql "$folder"
        timeout 120 mariadb-install-db --no-defaults --user=mysql --datadir="$folder" --skip-test-db \
            --auth-root-authentication-method=normal >"$BASE/log/mariadbd.out" 2>&1 || fail_at mariadbd "no database could be made"
        touch "$folder/made"
    fi
    pid_of mariadbd >/dev/null || launch mariadbd mariadbd --no-defaults --user=mysql --datadir="$folder" --socket="$folder/sock" \
        --bind-address=127.0.0.1 --port=$(($(<"$BASE/port0") + 2)) --log-error="$BASE/log/mariadbd.log" \
        --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0
    until_answers mariadbd 40 sql -e 'select 1'
    sql -e "create database if not exists slurm_acct_db; create user if not exists slurm@'127.0.0.1' identified by 'ci';
        create user if not exists slurm@localhost identified by 'ci'; grant all on slurm_acct_db.* to slurm@'127.0.0.1';
        grant all on slurm_acct_db.* to slurm@localhost;"
}

start_slurmdbd() {
    pid_of slurmdbd >/dev/null || launch slurmdbd slurmdbd -D
    until_answers slurmdbd 30 timeout 5 sacctmgr -n show stats
}

start_slurmctld() {
    pid_of slurmctld >/dev/null || launch slurmctld slurmctld -D
    until_answers slurmctld 40 controller_works
}

add_users() {
    id "$USER_NAME" >/dev/null 2>&1 || useradd --no-create-home --home-dir /nonexistent --shell /bin/bash "$USER_NAME"
    [ "$ACCT" != none ] || return 0
    # known before slurmctld registers
    local known
    known=$(timeout 20 sacctmgr -nP show assoc format=cluster,account,user)
    if ! grep -qx "ci|$ACCOUNT|$USER_NAME" <<<"$known"; then
        timeout 20 sacctmgr -iQ add cluster ci >/dev/null || true # it may be there
        timeout 20 sacctmgr -iQ add account $ACCOUNT Cluster=ci Description=ci Organization=ci >/dev/null || true
        timeout 20 sacctmgr -iQ add user "root,$USER_NAME" Account=$ACCOUNT >/dev/null || fail_at slurmdbd "no accounts can be made"
    fi
}

# --- nodes: each in a PID namespace, so that killing its first process takes slurmd, the steps and the jobs at once ----
launch_node() {
    local namespace=(unshare --pid --fork --kill-child --mount-proc)
    pid_of "slurmd-$1" >/dev/null && return 0
    if "${namespace[@]}" true 2>/dev/null; then
        # bash is process 1 of the namespace, and buries orphans; slurmd would not
        launch "slurmd-$1" "${namespace[@]}" bash -c "slurmd -D -N $1; exit"
    else
        touch "$BASE/run/no-namespaces"
        launch "slurmd-$1" slurmd -D -N "$1"
    fi
}

kill_node() {
    halt "slurmd-$1" KILL
    [ ! -e "$BASE/run/no-namespaces" ] || kill_jobs "$1"
}

# kill_jobs NAME: without namespaces the jobs outlive slurmd. They are known by their environment; who watches over them
# goes first, or would still report how they ended
kill_jobs() {
    local environ process parent jobs=() watchers=()
    for environ in /proc/[0-9]*/environ; do
        process=${environ%/environ}
        if { tr '\0' '\n' <"$environ" | grep -cxE "SLURMD_NODENAME=$1|SLURM_CONF=$SLURM_CONF" | grep -qx 2; } 2>/dev/null; then
            jobs+=("${process#/proc/}")
            parent=$(sed -n 's/^PPid:\t//p' "$process/status" 2>/dev/null) || continue
            [ "$(cat "/proc/$parent/comm" 2>/dev/null)" != slurmstepd ] || watchers+=("$parent")
        fi
    done
    for process in "${watchers[@]}" "${jobs[@]}"; do kill -KILL "$process" 2>/dev/null || true; done
}

# node_works NAME [TIME]: its slurmd started at TIME or later, and it takes jobs
node_works() {
    local state started
    started=$(timeout 5 scontrol show node "$1" | grep -o 'SlurmdStartTime=[^ ]*') || return 1
    [[ ! ${started#*=} < ${2:-} ]] || return 1
    state=$(timeout 5 sinfo -hN -n "$1" -o '%t' | head -n 1)
    [[ ! $state =~ ^(dr|down) ]] || timeout 5 scontrol update NodeName="$1" State=RESUME
    [[ $state =~ ^(idle|mix|alloc|comp|plnd)-?$ ]]
}

node_up() {
    local since=''
    grep -q "^NodeName=$1 " "$SLURM_CONF" || fail "no node $1; there are: $(grep -o '^NodeName=[^ ]*' "$SLURM_CONF" | cut -d= -f2 | xargs)"
    pid_of "slurmd-$1" >/dev/null || since=$(date +%FT%T)
    launch_node "$1"
    until_answers "slurmd-$1" 60 node_works "$1" "$since"
}

node_down() {
    kill_node "$1"
    [ "${2:-}" = quiet ] || timeout 40 scontrol update NodeName="$1" State=DOWN Reason="power cut (test)"
}

# --- verbs -------------------------------------------------------------------------------------------------------------
up() {
    local name
    [ "$(id -u)" = 0 ] || cannot "a SLURM cluster needs root"
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then cannot "a SLURM cluster needs Debian (apt-get, dpkg)"; fi
    check_base
    mkdir -p "$BASE"/{etc,log,run,dev,spool/ctld}
    touch "$BASE/.cluster"
    chmod 755 "$BASE" "$BASE"/*/
    install_packages
    choose_ports
    write_conf
    for name in munged mariadbd slurmdbd slurmctld; do wake $name; done
    start_munged
    if [ "$ACCT" != none ]; then start_mariadbd; start_slurmdbd; fi
    add_users
    start_slurmctld
    for name in $(nodes); do launch_node "$name"; done
    for name in $(nodes); do node_up "$name"; done
    say "up in $BASE, ports from $PORT0, accounting: $ACCT"
}

# stop_all SIGNAL: by recorded pid only
stop_all() {
    local file
    for file in "$BASE"/run/slurmd-*.pid; do
        [ ! -e "$file" ] || { file=${file##*/slurmd-}; kill_node "${file%.pid}"; }
    done
    for file in slurmctld slurmdbd mariadbd munged; do halt $file "$1"; done
}

down() {
    [ -e "$BASE" ] || return 0
    check_base
    if [ "${PURGE:-0}" = 1 ]; then
        stop_all KILL
        rm -rf "$BASE"
    else
        stop_all TERM
    fi
}

daemon() { # start|stop DAEMON [now]
    [[ ${2:-} =~ ^(munged|mariadbd|slurmdbd|slurmctld)$ ]] || fail "which daemon? munged, mariadbd, slurmdbd or slurmctld"
    case $1${3:+-$3} in
        start)
            wake "$2"
            "start_$2"
            ;;
        stop) halt "$2" TERM ;;
        stop-now) halt "$2" KILL ;;
        *) fail "stop DAEMON [now], or start DAEMON" ;;
    esac
}

case ${1:-} in
    node-up | node-down | start | stop) [ -s "$SLURM_CONF" ] || fail "no cluster in $BASE (cluster.sh up)" ;;
esac
case ${1:-} in
    up) up ;;
    down) down ;;
    node-up) node_up "${2:?which node}" ;;
    node-down) node_down "${2:?which node}" "${3:-}" ;;
    start | stop) daemon "$@" ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac
