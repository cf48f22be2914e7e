"""System calls by what they are for: what no level allows, and all that ``high`` does."""

from __future__ import annotations

NOT_PERMITTED = (
    # nested namespaces, and mounts within them
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree",
    "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "statmount", "listmount",
    # files by handle, which no mount view contains
    "open_by_handle_at", "name_to_handle_at",
    # the host's keyrings, which no namespace contains
    "keyctl", "add_key", "request_key",
    # large kernel surfaces that sandboxed code has no need of
    "bpf", "userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter",
    "io_uring_register", "fanotify_init", "kcmp", "pidfd_getfd", "lookup_dcookie", "vhangup",
    # the machine itself: refused by missing capabilities too
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "acct",
    "swapon", "swapoff", "reboot", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
    "quotactl", "quotactl_fd", "syslog", "iopl", "ioperm", "lsm_set_self_attr",
    # remains of older kernels
    "nfsservctl", "_sysctl", "uselib", "ustat", "sysfs", "create_module", "get_kernel_syms",
    "query_module",
)  # fmt: skip
"""Refused at every level."""

OUTSIDERS = (
    # objects of System V and POSIX that only an IPC namespace contains
    "shmget", "shmat", "shmctl", "msgget", "msgsnd", "msgrcv", "msgctl", "semget", "semop",
    "semtimedop", "semctl", "mq_open", "mq_unlink",
    # what a process of the same uid may do to another that Landlock does not know of
    "setpriority", "ioprio_set", "migrate_pages", "move_pages", "process_madvise",
    "process_mrelease",
)  # fmt: skip
"""Refused besides where no namespace hides the host's processes and objects."""

_FILES = (
    "open", "openat", "openat2", "creat", "close", "close_range", "read", "readv", "pread64",
    "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev", "pwritev2", "lseek", "sendfile",
    "copy_file_range", "splice", "tee", "readahead", "fadvise64", "fallocate", "truncate",
    "ftruncate", "fsync", "fdatasync", "sync_file_range", "flock", "fcntl", "dup", "dup2", "dup3",
    "pipe", "pipe2", "ioctl", "umask",
)  # fmt: skip

_NAMES_AND_ATTRIBUTES = (
    "stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "getdents", "getdents64", "getcwd", "chdir", "fchdir",
    "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link",
    "linkat", "symlink", "symlinkat", "mknod", "mknodat", "chmod", "fchmod", "fchmodat",
    "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat",
    "utimensat", "getxattr", "lgetxattr", "fgetxattr", "getxattrat", "setxattr", "lsetxattr",
    "fsetxattr", "setxattrat", "listxattr", "llistxattr", "flistxattr", "listxattrat",
    "removexattr", "lremovexattr", "fremovexattr", "removexattrat", "inotify_init",
    "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
)  # fmt: skip

_MEMORY = (
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "msync", "mincore", "mlock", "mlock2",
    "mlockall", "munlock", "munlockall", "mseal", "memfd_create", "membarrier", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "map_shadow_stack",
)  # fmt: skip

_PROCESSES = (
    "clone", "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid",
    "getpid", "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "prctl",
    "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "futex", "futex_waitv",
    "futex_wait", "futex_wake", "futex_requeue", "pidfd_open", "getcpu", "getpriority",
    "setpriority", "ioprio_get", "sched_yield", "sched_getaffinity", "sched_setaffinity",
    "sched_getattr", "sched_setattr", "sched_getparam", "sched_setparam", "sched_getscheduler",
    "sched_setscheduler", "sched_get_priority_max", "sched_get_priority_min",
    "sched_rr_get_interval", "getrlimit", "setrlimit", "prlimit64", "getrusage", "times",
    "uname", "sysinfo",
    # a process can only lose by these: uids it has not, filters and rules on top of ours
    "getuid", "geteuid", "getresuid", "setuid", "setreuid", "setresuid", "setfsuid", "getgid",
    "getegid", "getresgid", "setgid", "setregid", "setresgid", "setfsgid", "getgroups",
    "setgroups", "capget", "seccomp", "landlock_create_ruleset", "landlock_add_rule",
    "landlock_restrict_self",
    # the kernel's own, where the host traces a program: without them the program would die of it
    "uretprobe", "uprobe",
)  # fmt: skip

_SIGNALS_AND_TIME = (
    "kill", "tkill", "tgkill", "rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sigaltstack",
    "signalfd", "signalfd4", "pidfd_send_signal", "restart_syscall", "pause", "alarm", "nanosleep",
    "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "getitimer",
    "setitimer", "timer_create", "timer_delete", "timer_gettime", "timer_settime",
    "timer_getoverrun", "timerfd_create", "timerfd_gettime", "timerfd_settime", "getrandom",
)  # fmt: skip

_WAITING_AND_SOCKETS = (
    "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "socket", "socketpair",
    "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername", "getsockopt",
    "setsockopt", "shutdown", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg",
)  # fmt: skip

ALLOWED = (
    *_FILES, *_NAMES_AND_ATTRIBUTES, *_MEMORY, *_PROCESSES, *_SIGNALS_AND_TIME,
    *_WAITING_AND_SOCKETS,
)  # fmt: skip
"""All that ``high`` allows.

Left out, besides what no level allows: tracing, and the memory of other processes; segments and
queues of System V and POSIX; NUMA and the priority of input and output; the kernel's own
asynchronous files; ``sync`` and ``syncfs``, which flush the whole host; ``vmsplice``;
``personality`` and ``modify_ldt``; names of the machine; questions about security modules.
"""
