"""Which system calls a box may not make. The numbers are those of x86_64 and of aarch64."""

#: A system call's number on x86_64 and on aarch64; None where the architecture has none.
Numbers = tuple[int, int | None]

#: Refused with EPERM, as the kernel refuses somebody without the right. Most would be refused without us: nobody in a
#: box has a capability. But a good part of the kernel's known holes lies behind these, before or after that check.
FORBIDDEN: dict[str, Numbers] = {
    # What is visible: mounts, roots, namespaces.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    # Other processes' memory and descriptors: between two programs in one box, sockets and files are enough.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # Large machines inside the kernel, each with a long history of holes; programs do without where they are missing.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "vmsplice": (278, 75),
    # Keys belong to users, and all boxes of a daemon are the same user.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # The machine itself.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    # Files by other ways than their names; what others do with files; which pages of shared files are in memory.
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "lookup_dcookie": (212, 18),
    "cachestat": (451, 451),
    # Where memory lies on machines with several memories. Libraries take the refusal for a machine with one.
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "get_mempolicy": (239, 236),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "set_mempolicy_home_node": (450, 450),
    # Nobody has needed them for many years.
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "nfsservctl": (180, 42),
}

#: Said not to exist: the filter cannot look at its flags, which lie in memory. The C library then uses `clone`.
MISSING: dict[str, Numbers] = {"clone3": (435, 435)}

#: Allowed or refused by their arguments: see seccomp.py.
CLONE: Numbers = (56, 220)
IOCTL: Numbers = (16, 29)
PERSONALITY: Numbers = (135, 92)
SOCKET: Numbers = (41, 198)
SOCKETPAIR: Numbers = (53, 199)

#: The newest one that has been judged (`removexattrat`, Linux 6.13). Later ones do not exist in a box until somebody
#: has thought about them; programs know how to do without what an older kernel does not have.
NEWEST: Numbers = (466, 466)
#: Numbers that no system call for programs has on each architecture, and later ones may get: first, and first after.
GAP: tuple[tuple[int, int], tuple[int, int]] = ((335, 424), (295, 424))
