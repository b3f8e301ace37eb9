/*-------------------------------------------------------------------------
 * mux.c
 *		Hides epoll (Linux) and kqueue (BSD, macOS) behind a few functions.
 *
 * PostgreSQL waits on one descriptor, however many sockets libcurl has: a
 * WaitEventSet cannot lose a member again, while both facilities let their
 * descriptor be waited on like a socket.
 *
 * libcurl stops to watch a socket when its request is done, and watches it
 * again for the next.  A socket whose end is known beforehand therefore stays
 * registered while nothing is wanted of it, until it reports something all
 * the same.  That saves two system calls a request.
 *
 * Plain C; nothing raises.  errno tells why something failed.
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
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

static MuxSocket *find_socket(Mux *mux, int socket);
static bool register_socket(Mux *mux, int socket, int events);

/*
 * Opens a multiplexer; false if that is not possible.
 */
bool
sgt_mux_open(Mux *mux)
{
	memset(mux, 0, sizeof(*mux));
#ifdef __linux__
	mux->fd = epoll_create1(EPOLL_CLOEXEC);
#else
	mux->fd = kqueue();
	if (mux->fd >= 0)
		(void) fcntl(mux->fd, F_SETFD, FD_CLOEXEC);
#endif
	return mux->fd >= 0;
}

void
sgt_mux_close(Mux *mux)
{
	if (mux->fd >= 0)
		close(mux->fd);
	free(mux->sockets);
	memset(mux, 0, sizeof(*mux));
	mux->fd = -1;
}

/*
 * Announces a socket that sgt_mux_remove() will be called for before it is
 * closed; false if memory is short.
 */
bool
sgt_mux_add(Mux *mux, int socket)
{
	MuxSocket  *s = find_socket(mux, socket);

	if (s == NULL)
		return false;

	/* what is left here is of one that was closed without a word */
	sgt_mux_remove(mux, socket);
	s->is_owned = true;
	return true;
}

void
sgt_mux_remove(Mux *mux, int socket)
{
	if (socket < mux->n_sockets)
	{
		/* closing does the rest, at least for the kernel */
		memset(&mux->sockets[socket], 0, sizeof(MuxSocket));
	}
}

/*
 * Watches a socket for these events from now on; for none if they are 0.
 * False if that is not possible.
 */
bool
sgt_mux_watch(Mux *mux, int socket, int events)
{
	MuxSocket  *s = find_socket(mux, socket);

	if (s == NULL)
		return false;
	s->wanted = (unsigned char) events;
	if (s->registered == events || (events == 0 && s->is_owned))
		return true;
	return register_socket(mux, socket, events);
}

/*
 * Fills in which sockets are ready now, without waiting, and returns how
 * many.  To be called when the multiplexer's descriptor is ready.  What does
 * not fit is reported by the next call: both facilities report a condition,
 * not its change.
 */
int
sgt_mux_ready(Mux *mux, MuxEvent *events, int max_events)
{
	int			n;
	int			n_wanted = 0;
#ifdef __linux__
	struct epoll_event ready[MAX_READY];
#else
	struct kevent ready[MAX_READY];
	struct timespec no_time = {0, 0};
#endif

	if (max_events > MAX_READY)
		max_events = MAX_READY;
	do
	{
#ifdef __linux__
		n = epoll_wait(mux->fd, ready, max_events, 0);
#else
		n = kevent(mux->fd, NULL, 0, ready, max_events, &no_time);
#endif
		for (int i = 0; i < n; i++)
		{
			MuxEvent	event = {0};

#ifdef __linux__
			event.socket = ready[i].data.fd;
			if (ready[i].events & EPOLLIN)
				event.events |= MUX_READ;
			if (ready[i].events & EPOLLOUT)
				event.events |= MUX_WRITE;
			if (ready[i].events & (EPOLLERR | EPOLLHUP))
				event.events |= MUX_ERROR;
#else
			event.socket = (int) ready[i].ident;
			event.events = ready[i].filter == EVFILT_WRITE ? MUX_WRITE : MUX_READ;
			if (ready[i].flags & EV_ERROR)
				event.events |= MUX_ERROR;
#endif
			if (mux->sockets[event.socket].wanted)
				events[n_wanted++] = event;
			else
				(void) register_socket(mux, event.socket, 0);
		}
	} while (n_wanted == 0 && n == max_events);
	return n_wanted;
}

/*
 * The socket's entry, or NULL if memory is short.
 */
static MuxSocket *
find_socket(Mux *mux, int socket)
{
	if (socket >= mux->n_sockets)
	{
		int			n = socket + 16;
		MuxSocket  *sockets = realloc(mux->sockets, n * sizeof(MuxSocket));

		if (sockets == NULL)
			return NULL;
		memset(sockets + mux->n_sockets, 0,
			   (n - mux->n_sockets) * sizeof(MuxSocket));
		mux->sockets = sockets;
		mux->n_sockets = n;
	}
	return &mux->sockets[socket];
}

/*
 * Tells the kernel.  A socket that was closed already needs not be taken out,
 * and its number may be another's by now.
 */
static bool
register_socket(Mux *mux, int socket, int events)
{
	MuxSocket  *s = &mux->sockets[socket];
	bool		ok = true;
#ifdef __linux__
	struct epoll_event event = {0};

	if (events & MUX_READ)
		event.events |= EPOLLIN;
	if (events & MUX_WRITE)
		event.events |= EPOLLOUT;
	event.data.fd = socket;
	if (events == 0)
		(void) epoll_ctl(mux->fd, EPOLL_CTL_DEL, socket, &event);
	else
		ok = epoll_ctl(mux->fd, s->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
					   socket, &event) == 0 ||
			(errno == ENOENT &&
			 epoll_ctl(mux->fd, EPOLL_CTL_ADD, socket, &event) == 0) ||
			(errno == EEXIST &&
			 epoll_ctl(mux->fd, EPOLL_CTL_MOD, socket, &event) == 0);
#else
	struct kevent change;

	EV_SET(&change, socket, EVFILT_READ,
		   events & MUX_READ ? EV_ADD : EV_DELETE, 0, 0, 0);
	ok &= kevent(mux->fd, &change, 1, NULL, 0, NULL) == 0 ||
		!(events & MUX_READ);
	EV_SET(&change, socket, EVFILT_WRITE,
		   events & MUX_WRITE ? EV_ADD : EV_DELETE, 0, 0, 0);
	ok &= kevent(mux->fd, &change, 1, NULL, 0, NULL) == 0 ||
		!(events & MUX_WRITE);
#endif
	if (!ok)
		events = 0;
	s->registered = (unsigned char) events;
	return ok;
}
