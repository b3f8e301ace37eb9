/*-------------------------------------------------------------------------
 * shim.c
 *		Makes system calls fail, or take long, on demand.
 *
 * The tests preload it into a server.  Files in the directory that
 * SHIM_DIRECTORY names say what is to fail:
 *
 * fail_alloc: holds a number; the allocation with that number, counted from
 * now on, fails once.  Only allocations by sw_guest_token, libcurl and json-c
 * are counted.  The file is removed when the counting begins.
 *
 * fail_socket: while it exists, no internet socket can be opened.
 *
 * fail_sockets: holds a number; that many internet sockets, counted from now
 * on, cannot be opened.  The file is removed when the counting begins.
 *
 * fail_watch: while it exists, sw_guest_token's epoll_ctl() fails.
 *
 * watch: holds a path; each time that a stream is opened on it, a byte is
 * appended to the file "opens".  If the file "max_opens" holds a number, no
 * more than that succeed.
 *
 * no_ca_cache: while it exists, libcurl reads the certificate authorities for
 * each connection, as it does if its TLS library does not let it keep them.
 *
 * authority: holds the path of a certificate, which is then in the directory of
 * authorities that libcurl was built with, under any hash.
 *
 * address: holds the address of host names that begin with "moved.".
 *
 * A host name that begins with "slow." takes a minute to look up, and one that
 * begins with "late." four seconds.  One that begins with "two." has two
 * addresses, 127.0.0.2 and 127.0.0.1, and one that begins with "three." also
 * ::1.
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static long countdown = 0;

static const char *
path(const char *name)
{
	static char buffer[1024];
	const char *directory = getenv("SHIM_DIRECTORY");

	snprintf(buffer, sizeof(buffer), "%s/%s", directory ? directory : "/nonexistent", name);
	return buffer;
}

/*
 * The number in a file, which is removed; -1 if there is no such file.
 */
static long
take_number(const char *name)
{
	int			fd = open(path(name), O_RDONLY);
	char		text[32] = "";

	if (fd < 0)
		return -1;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	unlink(path(name));
	return atol(text);
}

static int
fails(const void *caller)
{
	static __thread int busy = 0;
	Dl_info		info;
	int			result = 0;

	if (busy)
		return 0;
	busy = 1;
	if (dladdr(caller, &info) && info.dli_fname &&
		(strstr(info.dli_fname, "sw_guest_token") ||
		 strstr(info.dli_fname, "libcurl") ||
		 strstr(info.dli_fname, "libjson-c")))
	{
		long		n = take_number("fail_alloc");

		if (n >= 0)
			countdown = n;
		if (countdown > 0 && --countdown == 0)
			result = 1;
	}
	busy = 0;
	if (result)
		errno = ENOMEM;
	return result;
}

#define REAL(type, name, ...) \
	static type (*real)(__VA_ARGS__) = NULL; \
	if (real == NULL) \
		real = (type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, name)

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

void *
malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *
calloc(size_t n, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *p, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, size);
}

int
socket(int domain, int type, int protocol)
{
	static long n_failing = 0;
	bool		is_internet = domain == AF_INET || domain == AF_INET6;

	REAL(int, "socket", int, int, int);

	if (is_internet && n_failing <= 0)
		n_failing = take_number("fail_sockets");
	if (is_internet &&
		(access(path("fail_socket"), F_OK) == 0 || (n_failing > 0 && n_failing-- > 0)))
	{
		errno = EMFILE;
		return -1;
	}
	return real(domain, type, protocol);
}

int
epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
	REAL(int, "epoll_ctl", int, int, int, struct epoll_event *);
	Dl_info		info;

	if (dladdr(__builtin_return_address(0), &info) && info.dli_fname &&
		strstr(info.dli_fname, "sw_guest_token.so") &&
		access(path("fail_watch"), F_OK) == 0)
	{
		errno = ENOMEM;
		return -1;
	}
	return real(set, operation, fd, event);
}

int
getaddrinfo(const char *node, const char *service,
			const struct addrinfo *hints, struct addrinfo **result)
{
	REAL(int, "getaddrinfo", const char *, const char *,
		 const struct addrinfo *, struct addrinfo **);

	if (node && (strncmp(node, "slow.", 5) == 0 || strncmp(node, "late.", 5) == 0))
	{
		sleep(node[0] == 's' ? 60 : 4);
		return EAI_NONAME;
	}
	if (node && strncmp(node, "moved.", 6) == 0)
	{
		char		text[64] = "";
		int			fd = open(path("address"), O_RDONLY);

		if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
			return EAI_NONAME;
		close(fd);
		text[strcspn(text, "\n")] = '\0';
		return real(text, service, hints, result);
	}
	if (node && (strncmp(node, "two.", 4) == 0 || strncmp(node, "three.", 6) == 0))
	{
		const char *addresses[] = {"127.0.0.2", "127.0.0.1", "::1"};

		struct addrinfo **end = result;

		/* libcurl may ask for one IP version at a time */
		*result = NULL;
		for (int i = 0; i < (node[1] == 'w' ? 2 : 3); i++)
		{
			if (real(addresses[i], service, hints, end) != 0)
				*end = NULL;
			while (*end)
				end = &(*end)->ai_next;
		}
		return *result ? 0 : EAI_NONAME;
	}
	return real(node, service, hints, result);
}

/* Whether a stream may be opened on this file. */
static int
may_open(const char *name)
{
	char		text[1024] = "";
	int			ok = 1;
	int			fd = open(path("watch"), O_RDONLY);

	if (fd < 0)
		return 1;
	if (read(fd, text, sizeof(text) - 1) > 0 && strcmp(name, text) == 0)
	{
		int			opens = open(path("opens"), O_WRONLY | O_CREAT | O_APPEND, 0600);
		int			max = open(path("max_opens"), O_RDONLY);

		if (write(opens, ".", 1) != 1)
			abort();
		memset(text, 0, sizeof(text));
		if (max >= 0 && read(max, text, sizeof(text) - 1) > 0)
			ok = lseek(opens, 0, SEEK_END) <= atoi(text);
		close(max);
		close(opens);
	}
	close(fd);
	if (!ok)
		errno = ENOENT;
	return ok;
}

/*
 * The file to open in place of a certificate in the system's directory; other
 * names stand for themselves.
 */
static const char *
find_authority(const char *name)
{
	static char text[1024];
	const char *file = strrchr(name, '/');
	const char *end = file ? strrchr(file, '.') : NULL;
	const char *directory;
	const curl_version_info_data *(*info) (CURLversion);
	int			fd;

	if (end == NULL || strcmp(end, ".0") != 0)
		return name;
	/* libcurl may not be there yet */
	info = (const curl_version_info_data *(*) (CURLversion)) dlsym(RTLD_DEFAULT, "curl_version_info");
	if (info == NULL)
		return name;
	directory = info(CURLVERSION_NOW)->capath;
	if (directory == NULL || strlen(directory) != (size_t) (file - name) ||
		strncmp(name, directory, file - name) != 0)
		return name;
	fd = open(path("authority"), O_RDONLY);
	if (fd < 0)
		return name;
	memset(text, 0, sizeof(text));
	if (read(fd, text, sizeof(text) - 1) > 0)
		name = text;
	close(fd);
	return name;
}

int
stat(const char *name, struct stat *st)
{
	REAL(int, "stat", const char *, struct stat *);

	return real(find_authority(name), st);
}

int
lstat(const char *name, struct stat *st)
{
	REAL(int, "lstat", const char *, struct stat *);

	return real(find_authority(name), st);
}

FILE *
fopen(const char *name, const char *mode)
{
	REAL(FILE *, "fopen", const char *, const char *);

	return may_open(name) ? real(find_authority(name), mode) : NULL;
}

FILE *
fopen64(const char *name, const char *mode)
{
	REAL(FILE *, "fopen64", const char *, const char *);

	return may_open(name) ? real(find_authority(name), mode) : NULL;
}

CURLMcode
curl_multi_add_handle(CURLM *multi, CURL *easy)
{
	REAL(CURLMcode, "curl_multi_add_handle", CURLM *, CURL *);

	if (access(path("no_ca_cache"), F_OK) == 0)
		curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
	return real(multi, easy);
}
