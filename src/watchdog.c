/*-------------------------------------------------------------------------
 * watchdog.c
 *		Blocks signals while libcurl is on the stack, and ends calls that hang.
 *
 * libcurl, nghttp2 and OpenSSL keep reading as long as data arrives that is
 * not meant for their caller: empty frames of HTTP/2, TLS's own messages.  A
 * server that sends these without end would keep libcurl from returning, with
 * all signals blocked.  So a timer of the process's CPU time checks now and
 * then whether the call that it saw the last time is still running.  If so,
 * it calls a function that ends that call.
 *
 * It uses ITIMER_PROF and SIGPROF, which PostgreSQL leaves alone unless it is
 * built for gprof.  Setting and stopping the timer for each call would cost 6
 * us, so it keeps running until a look finds nothing to watch, and stops it.
 *
 * Plain C; nothing raises.
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/time.h>

#include "watchdog.h"

/*
 * The time between two looks.  No useful call takes a tenth of it; one that
 * does not return is ended after one or two of these.
 */
#define INTERVAL_MS			500

#define WATCHDOG_SIGNAL		SIGPROF

/* The number of the call in progress, or 0; and what the last look saw. */
static volatile sig_atomic_t call = 0;
static volatile sig_atomic_t seen_call = 0;

static volatile sig_atomic_t is_needed = false;
static volatile sig_atomic_t is_set = false;	/* the timer */

/* The backend's own thread. */
static pthread_t watched_thread;

static sigset_t saved_signals;

static void (*bite_function) (void) = NULL;

static void set_interval(int interval_ms);
static void look(int signal_number);

/*
 * Blocks all signals but the watchdog's, until they are restored.  There is
 * one mask to restore, so calls must not be nested.
 */
void
sgt_block_signals(void)
{
	sigset_t	all;

	sigfillset(&all);
	sigdelset(&all, WATCHDOG_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &all, &saved_signals);
}

void
sgt_restore_signals(void)
{
	pthread_sigmask(SIG_SETMASK, &saved_signals, NULL);
}

/*
 * Starts looking.  "bite" is called in a signal handler.
 */
void
sgt_start_watchdog(void (*bite) (void))
{
	struct sigaction action = {0};

	bite_function = bite;
	is_needed = true;
	if (is_set)
		return;
	watched_thread = pthread_self();
	action.sa_handler = look;
	action.sa_flags = SA_RESTART;
	sigemptyset(&action.sa_mask);
	/* without a handler, which another module may have removed, it would kill */
	if (sigaction(WATCHDOG_SIGNAL, &action, NULL) == 0)
		set_interval(INTERVAL_MS);
}

void
sgt_stop_watchdog(void)
{
	is_needed = false;
}

static void
set_interval(int interval_ms)
{
	struct itimerval interval = {0};

	interval.it_interval.tv_usec = interval_ms * 1000;
	interval.it_value = interval.it_interval;
	is_set = interval_ms > 0;
	setitimer(ITIMER_PROF, &interval, NULL);
}

/*
 * These two enclose a call that is watched.
 */
void
sgt_begin_watched_call(void)
{
	static int	n_calls = 0;

	n_calls = n_calls == INT_MAX ? 1 : n_calls + 1;
	call = n_calls;
}

void
sgt_end_watched_call(void)
{
	call = 0;
}

/*
 * The signal's handler.  The kernel may run it in one of libcurl's threads.
 */
static void
look(int signal_number)
{
	int			saved_errno = errno;

	if (!pthread_equal(pthread_self(), watched_thread))
		pthread_kill(watched_thread, signal_number);
	else
	{
		if (call != 0 && call == seen_call)
			bite_function();
		seen_call = call;
		if (!is_needed)
			set_interval(0);
	}
	errno = saved_errno;
}
