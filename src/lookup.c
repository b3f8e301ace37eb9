/*-------------------------------------------------------------------------
 * lookup.c
 *		Bounds the name look-ups that were given up and still run.
 *
 * libcurl looks names up in threads, by getaddrinfo(), which nobody can stop.
 * When an attempt is given up meanwhile, its thread stays until the name servers
 * answer or getaddrinfo() has tried them all, which takes ten seconds or more.
 * Attempts with a time limit of a millisecond would leave thousands behind, until
 * the operating system starts no more threads and processes, those of the server
 * included.
 *
 * From 8.20 on libcurl itself has few threads for all look-ups.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "lookup.h"

/* As many as a batch leaves behind by default while two name servers hang. */
#define MAX_LEFT_LOOK_UPS	64

/* At most so many run. */
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
 * directory; the one around them has two links, and one more for each.
 * Elsewhere nobody tells, and there is no bound.
 */
static int
count_threads(void)
{
	struct stat st;

	return stat("/proc/self/task", &st) == 0 ? (int) st.st_nlink - 3 : 0;
}
