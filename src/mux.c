/*-------------------------------------------------------------------------
 * mux.c
 *		Hides epoll (Linux) and kqueue (BSD, macOS) behind three functions.
 *
 * PostgreSQL waits on one descriptor, however many sockets libcurl has: a
 * WaitEventSet cannot lose a member again, while both facilities let their
 * descriptor be waited on like a socket.
 *
 * Plain C; nothing raises.  errno tells why something failed.
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stddef.h>
#ifdef __linux__
#include <sys/epoll.h>
#else
#include <fcntl.h>
#include <sys/event.h>
#include <sys/time.h>
#include <sys/types.h>
#endif

#include "mux.h"

#define MAX_READY	64

/*
 * Opens a multiplexer, which close() closes.  Returns -1 if it cannot.
 */
int
sgt_mux_open(void)
{
#ifdef __linux__
	return epoll_create1(EPOLL_CLOEXEC);
#else
	int			mux = kqueue();

	if (mux >= 0)
		(void) fcntl(mux, F_SETFD, FD_CLOEXEC);
	return mux;
#endif
}

/*
 * Watches a socket for "events" instead of "old_events"; 0 means not at all.
 */
bool
sgt_mux_watch(int mux, int fd, int events, int old_events)
{
#ifdef __linux__
	struct epoll_event event = {0};
	int			op = old_events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	/* a socket that is closed already is watched no more */
	if (events == 0)
	{
		(void) epoll_ctl(mux, EPOLL_CTL_DEL, fd, &event);
		return true;
	}

	if (events & MUX_READ)
		event.events |= EPOLLIN;
	if (events & MUX_WRITE)
		event.events |= EPOLLOUT;
	event.data.fd = fd;
	if (epoll_ctl(mux, op, fd, &event) == 0)
		return true;

	/* the number may have been another socket's meanwhile */
	if (op == EPOLL_CTL_MOD && errno == ENOENT)
		return epoll_ctl(mux, EPOLL_CTL_ADD, fd, &event) == 0;
	if (op == EPOLL_CTL_ADD && errno == EEXIST)
		return epoll_ctl(mux, EPOLL_CTL_MOD, fd, &event) == 0;
	return false;
#else
	static const int filters[2][2] = {
		{MUX_READ, EVFILT_READ}, {MUX_WRITE, EVFILT_WRITE}
	};
	struct kevent change;

	(void) old_events;
	for (int i = 0; i < 2; i++)
	{
		bool		wanted = events & filters[i][0];

		/* what is not watched, or closed already, need not be deleted */
		EV_SET(&change, fd, filters[i][1], wanted ? EV_ADD : EV_DELETE, 0, 0, 0);
		if (kevent(mux, &change, 1, NULL, 0, NULL) != 0 && wanted)
			return false;
	}
	return true;
#endif
}

/*
 * Fills in what is ready now, without waiting, and returns how many.  What
 * does not fit is reported by the next call: both facilities report a
 * condition, not its change.
 */
int
sgt_mux_ready(int mux, MuxEvent *events, int max_events)
{
	int			n;
#ifdef __linux__
	struct epoll_event ready[MAX_READY];
#else
	struct kevent ready[MAX_READY];
	struct timespec no_time = {0, 0};
#endif

	if (max_events > MAX_READY)
		max_events = MAX_READY;
#ifdef __linux__
	n = epoll_wait(mux, ready, max_events, 0);
	for (int i = 0; i < n; i++)
	{
		events[i].fd = ready[i].data.fd;
		events[i].events = 0;
		if (ready[i].events & EPOLLIN)
			events[i].events |= MUX_READ;
		if (ready[i].events & EPOLLOUT)
			events[i].events |= MUX_WRITE;
		if (ready[i].events & (EPOLLERR | EPOLLHUP))
			events[i].events |= MUX_ERROR;
	}
#else
	n = kevent(mux, NULL, 0, ready, max_events, &no_time);
	for (int i = 0; i < n; i++)
	{
		events[i].fd = (int) ready[i].ident;
		events[i].events =
			ready[i].filter == EVFILT_WRITE ? MUX_WRITE : MUX_READ;
		if (ready[i].flags & EV_ERROR)
			events[i].events |= MUX_ERROR;
	}
#endif
	return n > 0 ? n : 0;
}
