/* Fails a process at the k-th operation that changes files below a directory; LD_PRELOADed by fault_injection.py.
 *
 * fault_arm(directory, k, mode, record) starts counting at 1. In mode
 *   'k' the process is killed (SIGKILL) instead of doing operation k,
 *   't' it writes half of the bytes of operation k first, where that is a write,
 *   'f' the disk is full from operation k on: what needs space fails with ENOSPC, what frees or syncs works,
 *   'o' operation k alone fails with ENOSPC, where it needs space.
 * Each operation is also written as a line (its name and path) to the descriptor `record` unless that is -1.
 * System calls that a library makes without the C library are not seen; there is none that is not next to one that is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char watched[PATH_MAX];
static long chosen, seen;
static int mode, report = -1, armed;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

void fault_arm(const char *directory, long k, int how, int record) {
    snprintf(watched, sizeof watched, "%s", directory);
    chosen = k, mode = how, report = record, seen = 0, armed = 1;
}

long fault_count(void) { armed = 0; return seen; }

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static int below(const char *path) {
    size_t length = strlen(watched);
    return !strncmp(path, watched, length) && (path[length] == '/' || path[length] == 0);
}

/* The path that descriptor `fd`, or `name` in the directory `fd`, stands for; an empty string where there is none. */
static void resolve(char *out, int fd, const char *name) {
    char link[64];
    ssize_t length = 0;
    out[0] = 0;
    if (name && name[0] == '/') { snprintf(out, PATH_MAX, "%s", name); return; }
    if (fd == AT_FDCWD) { if (getcwd(out, PATH_MAX)) length = (ssize_t)strlen(out); }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, out, PATH_MAX - 1);
    }
    if (length < 0) length = 0;
    out[length] = 0;
    if (name) snprintf(out + length, (size_t)(PATH_MAX - length), "/%s", name);
}

/* Count an operation; return 1 when it must fail for want of space, 2 when it must be torn. */
static int strike(const char *operation, int fd, const char *name, int needs_space, int is_write) {
    char path[PATH_MAX], line[PATH_MAX + 64];
    if (!armed) return 0;
    resolve(path, fd, name);
    if (!below(path)) return 0;
    long number = __sync_add_and_fetch(&seen, 1);
    if (report >= 0) {
        int length = snprintf(line, sizeof line, "%s %s\n", operation, path);
        if (syscall(SYS_write, report, line, (size_t)length) != length) die();
    }
    if (number < chosen || chosen == 0) return 0;
    if (mode == 'f') return needs_space;
    if (number > chosen) return 0;
    if (mode == 'o') return needs_space;
    if (mode == 't' && is_write) return 2;
    die();
    return 0;
}

#define FULL(value) do { errno = ENOSPC; return value; } while (0)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    int fate = strike("write", fd, 0, 1, 1);
    if (fate == 1) FULL(-1);
    if (fate == 2) { (void)!real(fd, bytes, count / 2); die(); }
    return real(fd, bytes, count);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(pwrite);
    int fate = strike("pwrite", fd, 0, 1, 1);
    if (fate == 1) FULL(-1);
    if (fate == 2) { (void)!real(fd, bytes, count / 2, at); die(); }
    return real(fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { return pwrite(fd, bytes, count, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    int fate = strike("writev", fd, 0, 1, 1);
    if (fate == 1) FULL(-1);
    if (fate == 2) { (void)!real(fd, parts, (count + 1) / 2); die(); }
    return real(fd, parts, count);
}
int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    if (strike("ftruncate", fd, 0, 1, 0) == 1) FULL(-1);
    return real(fd, length);
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }
int truncate(const char *path, off_t length) {
    REAL(truncate);
    if (strike("truncate", AT_FDCWD, path, 0, 0) == 1) FULL(-1);
    return real(path, length);
}
int truncate64(const char *path, off64_t length) { return truncate(path, length); }
int fsync(int fd) { REAL(fsync); strike("fsync", fd, 0, 0, 0); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); strike("fdatasync", fd, 0, 0, 0); return real(fd); }

int rename(const char *from, const char *to) {
    REAL(rename);
    strike("rename", AT_FDCWD, to, 0, 0);
    return real(from, to);
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    REAL(renameat);
    strike("rename", to_fd, to, 0, 0);
    return real(from_fd, from, to_fd, to);
}
int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    REAL(renameat2);
    strike("rename", to_fd, to, 0, 0);
    return real(from_fd, from, to_fd, to, flags);
}
int link(const char *from, const char *to) {
    REAL(link);
    if (strike("link", AT_FDCWD, to, 1, 0) == 1) FULL(-1);
    return real(from, to);
}
int unlink(const char *path) { REAL(unlink); strike("unlink", AT_FDCWD, path, 0, 0); return real(path); }
int unlinkat(int fd, const char *path, int flags) {
    REAL(unlinkat);
    strike(flags & AT_REMOVEDIR ? "rmdir" : "unlink", fd, path, 0, 0);
    return real(fd, path, flags);
}
int rmdir(const char *path) { REAL(rmdir); strike("rmdir", AT_FDCWD, path, 0, 0); return real(path); }
int mkdir(const char *path, mode_t how) {
    REAL(mkdir);
    if (strike("mkdir", AT_FDCWD, path, 1, 0) == 1) FULL(-1);
    return real(path, how);
}
int mkdirat(int fd, const char *path, mode_t how) {
    REAL(mkdirat);
    if (strike("mkdir", fd, path, 1, 0) == 1) FULL(-1);
    return real(fd, path, how);
}

static int changes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }
#define ARGUMENTS mode_t how = 0; if (flags & O_CREAT) { va_list more; va_start(more, flags); how = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) {
    REAL(open);
    ARGUMENTS
    if (changes(flags) && strike("open", AT_FDCWD, path, !!(flags & O_CREAT), 0) == 1) FULL(-1);
    return real(path, flags, how);
}
int open64(const char *path, int flags, ...) { ARGUMENTS return open(path, flags | O_LARGEFILE, how); }
int openat(int fd, const char *path, int flags, ...) {
    REAL(openat);
    ARGUMENTS
    if (changes(flags) && strike("open", fd, path, !!(flags & O_CREAT), 0) == 1) FULL(-1);
    return real(fd, path, flags, how);
}
int openat64(int fd, const char *path, int flags, ...) { ARGUMENTS return openat(fd, path, flags | O_LARGEFILE, how); }
