/* Fault shim, loaded in front of libc with LD_PRELOAD. It sees only paths below SHIM_ROOT.
 *
 *   SHIM_ROOT        folder whose files are watched
 *   SHIM_TRACE       file that gets one record per effect (format below); several processes may share it
 *   SHIM_COUNT       file of 8 bytes: number of syncs so far (little-endian), for "one sync a commit"
 *   SHIM_SYNC_MS     milliseconds added to every sync
 *   SHIM_SYNC_EIO    path of a file; while it exists every sync fails with EIO
 *   SHIM_ENOSPC      path of a file; while it exists every write fails with ENOSPC
 *
 * Record: u8 op, u8 0, u16 length of path, u32 pid, u64 offset, u32 length of data, path, data
 * (little-endian). Effects are written after the call succeeded, so a sync in the trace has happened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OP_CREATE = 1, OP_WRITE, OP_TRUNCATE, OP_SYNC, OP_RENAME, OP_UNLINK, OP_MKDIR, OP_DIRSYNC };
#define FDS 4096

static char root[PATH_MAX];
static size_t root_length;
static int trace_fd = -1, count_fd = -1;
static long sync_ms;
static const char *eio_flag, *enospc_flag;
static char *names[FDS]; /* path of each watched descriptor, NULL for others */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void start(void) {
    const char *r = getenv("SHIM_ROOT"), *t = getenv("SHIM_TRACE"), *c = getenv("SHIM_COUNT");
    const char *ms = getenv("SHIM_SYNC_MS");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    eio_flag = getenv("SHIM_SYNC_EIO");
    enospc_flag = getenv("SHIM_ENOSPC");
    if (ms) sync_ms = atol(ms);
    if (r && realpath(r, root)) root_length = strlen(root);
    if (t) trace_fd = syscall(SYS_openat, AT_FDCWD, t, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (c) count_fd = syscall(SYS_openat, AT_FDCWD, c, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static int watched(const char *path) {
    return root_length && !strncmp(path, root, root_length) &&
           (path[root_length] == '/' || path[root_length] == 0);
}

static void absolute(int dir, const char *path, char *out) {
    char base[PATH_MAX] = "", link[64];
    if (path[0] == '/') { snprintf(out, PATH_MAX, "%s", path); return; }
    if (dir == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, base, sizeof base - 1);
        base[n > 0 ? n : 0] = 0;
    }
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) out[0] = 0;
}

static void record(int op, const char *path, uint64_t offset, const void *data, uint32_t length) {
    if (trace_fd < 0) return;
    size_t skip = root_length && watched(path) ? root_length : 0;
    path += skip;
    uint16_t n = strlen(path);
    uint8_t head[20];
    uint32_t pid = getpid();
    head[0] = op; head[1] = 0;
    memcpy(head + 2, &n, 2); memcpy(head + 4, &pid, 4);
    memcpy(head + 8, &offset, 8); memcpy(head + 16, &length, 4);
    struct iovec parts[3] = {{head, 20}, {(void *)path, n}, {(void *)data, length}};
    syscall(SYS_writev, trace_fd, parts, 3);
}

static void remember(int fd, const char *path) {
    if (fd < 0 || fd >= FDS) return;
    free(names[fd]);
    names[fd] = path ? strdup(path) : NULL;
}

static const char *name_of(int fd) {
    pthread_once(&once, start);
    return fd >= 0 && fd < FDS ? names[fd] : NULL;
}

static int no_space(void) {
    if (enospc_flag && !syscall(SYS_access, enospc_flag, F_OK)) { errno = ENOSPC; return 1; }
    return 0;
}

static int open_watched(int dir, const char *path, int flags, mode_t mode) {
    pthread_once(&once, start);
    char full[PATH_MAX];
    absolute(dir, path, full);
    int watch = watched(full), fresh = 0;
    if (watch && (flags & O_CREAT)) {
        if (syscall(SYS_access, full, F_OK)) { fresh = 1; if (no_space()) return -1; }
    }
    int fd = syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
    if (fd < 0) return fd;
    pthread_mutex_lock(&lock);
    remember(fd, watch ? full : NULL);
    if (watch && fresh) record(OP_CREATE, full, 0, "", 0);
    if (watch && !fresh && (flags & O_TRUNC)) record(OP_TRUNCATE, full, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }

int open(const char *path, int flags, ...) { MODE(flags) return open_watched(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_watched(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return open_watched(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return open_watched(dir, path, flags, mode); }

int close(int fd) {
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
    remember(fd, NULL);
    pthread_mutex_unlock(&lock);
    return syscall(SYS_close, fd);
}

static ssize_t wrote(int fd, const void *data, ssize_t n, off_t offset) {
    const char *path = name_of(fd);
    if (path && n > 0) {
        pthread_mutex_lock(&lock);
        record(OP_WRITE, path, offset, data, n);
        pthread_mutex_unlock(&lock);
    }
    return n;
}

ssize_t write(int fd, const void *data, size_t n) {
    const char *path = name_of(fd);
    if (!path) return syscall(SYS_write, fd, data, n);
    if (no_space()) return -1;
    ssize_t done = syscall(SYS_write, fd, data, n);
    return wrote(fd, data, done, lseek(fd, 0, SEEK_CUR) - (done > 0 ? done : 0));
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
    if (name_of(fd) && no_space()) return -1;
    return wrote(fd, data, syscall(SYS_pwrite64, fd, data, n, offset), offset);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) { return pwrite(fd, data, n, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!name_of(fd)) return syscall(SYS_writev, fd, parts, count);
    ssize_t all = 0;
    for (int i = 0; i < count; i++) {
        ssize_t n = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (n < 0) return all ? all : n;
        all += n;
    }
    return all;
}

static int truncated(int fd, off_t size) {
    const char *path = name_of(fd);
    int done = syscall(SYS_ftruncate, fd, size);
    if (!done && path) {
        pthread_mutex_lock(&lock);
        record(OP_TRUNCATE, path, size, "", 0);
        pthread_mutex_unlock(&lock);
    }
    return done;
}
int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncated(fd, size); }

static int synced(int fd, int (*call)(int)) {
    const char *path = name_of(fd);
    if (!path) return call(fd);
    if (eio_flag && !syscall(SYS_access, eio_flag, F_OK)) { errno = EIO; return -1; }
    if (sync_ms) {
        struct timespec wait = {sync_ms / 1000, (sync_ms % 1000) * 1000000};
        nanosleep(&wait, NULL);
    }
    int done = call(fd);
    if (done) return done;
    struct stat info;
    int dir = !fstat(fd, &info) && S_ISDIR(info.st_mode);
    pthread_mutex_lock(&lock);
    record(dir ? OP_DIRSYNC : OP_SYNC, path, 0, "", 0);
    if (count_fd >= 0) {
        uint64_t n = 0;
        syscall(SYS_pread64, count_fd, &n, 8, 0);
        n++;
        syscall(SYS_pwrite64, count_fd, &n, 8, 0);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}
int fsync(int fd) { pthread_once(&once, start); return synced(fd, real_fsync); }
int fdatasync(int fd) { pthread_once(&once, start); return synced(fd, real_fdatasync); }

static int renamed(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    pthread_once(&once, start);
    char a[PATH_MAX], b[PATH_MAX];
    absolute(from_dir, from, a); absolute(to_dir, to, b);
    int done = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (!done && watched(a) && watched(b)) {
        pthread_mutex_lock(&lock);
        for (int i = 0; i < FDS; i++)
            if (names[i] && !strcmp(names[i], a)) remember(i, b);
        record(OP_RENAME, a, 0, b + root_length, strlen(b + root_length));
        pthread_mutex_unlock(&lock);
    }
    return done;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned f) { return renamed(a, from, b, to, f); }

static int unlinked(int dir, const char *path, int flags) {
    pthread_once(&once, start);
    char full[PATH_MAX];
    absolute(dir, path, full);
    int done = syscall(SYS_unlinkat, dir, path, flags);
    if (!done && watched(full)) {
        pthread_mutex_lock(&lock);
        record(OP_UNLINK, full, 0, "", 0);
        pthread_mutex_unlock(&lock);
    }
    return done;
}
int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char *path, int flags) { return unlinked(dir, path, flags); }

int mkdir(const char *path, mode_t mode) {
    pthread_once(&once, start);
    char full[PATH_MAX];
    absolute(AT_FDCWD, path, full);
    int done = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (!done && watched(full)) {
        pthread_mutex_lock(&lock);
        record(OP_MKDIR, full, 0, "", 0);
        pthread_mutex_unlock(&lock);
    }
    return done;
}
