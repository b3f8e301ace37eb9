/*-------------------------------------------------------------------------
 * lookup.c
 *		Limits how many abandoned name look-ups keep running.
 *
 * libcurl looks names up in threads, by getaddrinfo(), which cannot be
 * stopped.  If an attempt is given up meanwhile, its thread stays until the
 * name servers answer or getaddrinfo() has tried them all, which takes ten
 * seconds or more.  Attempts with a time limit of a millisecond would leave
 * thousands behind, until the operating system starts no more threads or
 * processes, not even the server's.
 *
 * From 8.20 on libcurl itself uses only a few threads for all look-ups.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "lookup.h"

/* As many as a batch leaves behind by default while two name servers hang. */
#define MAX_LEFT_LOOK_UPS	64

/* The most that may be running. */
static int	n_left = 0;

static int	count_threads(void);

/*
 * Whether another look-up may start.
 */
bool
sgt_may_look_up(void)
{
	if (n_left >= MAX_LEFT_LOOK_UPS)
		n_left = Min(n_left, count_threads());
	return n_left < MAX_LEFT_LOOK_UPS;
}

/*
 * Notes that an attempt was given up during its look-up.
 */
void
sgt_note_left_look_up(void)
{
	n_left++;
}

/*
 * How many threads the process has besides the first.  Linux shows each as a
 * directory; the directory that holds these has two links, and one more for
 * each.  Other systems do not say, so there is no limit there.
 */
static int
count_threads(void)
{
	struct stat st;

	return stat("/proc/self/task", &st) == 0 ? (int) st.st_nlink - 3 : 0;
}
