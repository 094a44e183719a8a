/* Makes syncs and writes of files under CHAOS_STORE fail while the file
 * CHAOS_CONTROL says so: "fsync" (EIO), "write" (ENOSPC), and writes a line to
 * CHAOS_HITS for each. Loaded by LD_PRELOAD it lies below SQLite, whose calls go
 * through the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* A line is one write to a file that was opened to append: no two get mixed up. */
static void hit(const char *what)
{
	const char *hits = getenv("CHAOS_HITS");
	char line[16];
	int f, n, saved = errno;

	if (!hits || (f = open(hits, O_WRONLY | O_APPEND | O_CREAT, 0644)) < 0) {
		errno = saved;
		return;
	}
	n = snprintf(line, sizeof line, "%s\n", what);
	if (write(f, line, n) != n)
		abort(); /* a count that is wrong is worse than none */
	close(f);
	errno = saved;
}

static int armed(int fd, const char *what)
{
	const char *control = getenv("CHAOS_CONTROL"), *store = getenv("CHAOS_STORE");
	char link[64], path[4096], text[16] = "";
	ssize_t n;
	int f, saved = errno;

	if (!control || !store || (f = open(control, O_RDONLY)) < 0) {
		errno = saved;
		return 0;
	}
	n = read(f, text, sizeof text - 1);
	close(f);
	errno = saved;
	if (n <= 0 || strncmp(text, what, strlen(what)) != 0)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	errno = saved;
	if (n < 0)
		return 0;
	path[n] = 0;
	if (strncmp(path, store, strlen(store)) != 0)
		return 0;
	hit(what);
	return 1;
}

int fsync(int fd)
{
	static int (*real)(int);
	if (!real)
		real = dlsym(RTLD_NEXT, "fsync");
	if (armed(fd, "fsync")) {
		errno = EIO;
		return -1;
	}
	return real(fd);
}

int fdatasync(int fd)
{
	static int (*real)(int);
	if (!real)
		real = dlsym(RTLD_NEXT, "fdatasync");
	if (armed(fd, "fsync")) {
		errno = EIO;
		return -1;
	}
	return real(fd);
}

static ssize_t put(int fd, const void *buf, size_t n, off_t off, const char *name)
{
	ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, name);
	if (armed(fd, "write")) {
		errno = ENOSPC;
		return -1;
	}
	return real(fd, buf, n, off);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t off) { return put(fd, buf, n, off, "pwrite"); }
ssize_t pwrite64(int fd, const void *buf, size_t n, off_t off) { return put(fd, buf, n, off, "pwrite64"); }
