/*-------------------------------------------------------------------------
 * engine.c
 *		libcurl in a backend: its handles, sockets, timer and signals.
 *
 * Knows how libcurl and the server live together; knows nothing of what a
 * request says, which is for transfer.c, nor of retries, deadlines or batches,
 * which are for http.c.
 *
 * libcurl never waits by itself.  It names the sockets and the moment that it
 * waits for, and the backend sleeps on its latch, the postmaster's death and
 * all those sockets at once.  The engine lives as long as the backend, and
 * with it the connections that are kept alive.
 *
 * 1. No ereport() while libcurl is on the stack.  A callback that fails
 *    leaves a note in its transfer and returns libcurl's failure value.
 * 2. No thread of libcurl's has a signal open: PostgreSQL's handlers must not
 *    run there.  A thread inherits the mask of whoever starts it.  So signals
 *    are blocked while the engine opens or closes, and in a batch from when
 *    libcurl announces a name look-up: nothing else starts threads there.
 * 3. Every socket that libcurl opens is booked with fd.c, one for one.  (Two
 *    more, which it uses for the length of a name look-up, it keeps to
 *    itself.)
 * 4. libcurl's memory is malloc's, never palloc's: its threads use it, too.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "compat.h"
#include "engine.h"
#include "messages.h"
#include "mux.h"

/* CURLOPT_QUICK_EXIT, without which a cancel waits for a name look-up */
#define MIN_LIBCURL_VERSION	0x075700

#if LIBCURL_VERSION_NUM < 0x075700
#error "sw_guest_token needs libcurl 7.87 or newer: older versions cannot abandon a name look-up"
#endif

/*
 * Idle connections that a backend keeps: what a batch of the default
 * concurrency uses.
 */
#define MAX_KEPT_CONNECTIONS	16

/* Descriptors that the engine holds: the multiplexer, libcurl's wake-up pair. */
#define ENGINE_DESCRIPTORS	3

/*
 * How many sockets have their turn between two looks at interrupts: each may
 * bring a TLS handshake, or a body that is long.
 */
#define MAX_READY			16

/* How often libcurl may ask for another turn at once. */
#define MAX_TIMER_TURNS		64

static struct
{
	bool		ready;
	uint64		trust;			/* what libcurl keeps of it is of this number */
	bool		initialized;	/* libcurl as a whole, once */
	CURLM	   *multi;
	Mux			mux;
	bool		descriptors_booked;
	WaitEventSet *wait_set;
	uint32		wait_event;
	int			n_sockets;		/* that libcurl has open */
	int64		timer_us;		/* when libcurl wants a turn anyway */
	int			n_look_ups;		/* that may yet start a thread */
	bool		signals_blocked;
	sigset_t	saved_signals;
	bool		failed;			/* cannot go on */
}			engine = {.mux.fd = -1,.timer_us = NEVER};

static bool open_engine(void);
static bool can_open_one_more(void);
static bool open_multi(void);
static void drop_transfers(int n_kept);
static int	perform_sockets(void);
static void perform_timers(void);
static int	start_look_up(void *resolver, void *reserved, void *arg);
static curl_socket_t open_socket(void *arg, curlsocktype purpose,
								 struct curl_sockaddr *addr);
static int	close_socket(void *arg, curl_socket_t sock);
static int	watch_socket(CURL *easy, curl_socket_t sock, int what, void *arg,
						 void *socket_arg);
static int	set_timer(CURLM *multi, long timeout_ms, void *arg);
static void block_signals(void);
static void restore_signals(void);

/*
 * The engine's life
 */

/*
 * Makes the engine ready, if it is not yet; false if there is no descriptor
 * left for that.
 *
 * libcurl reads the certificate authorities once, and keeps them for a day.  To
 * have it read them for each connection would make a batch over TLS wait tens
 * of milliseconds per connection, a time in which nothing can be interrupted.
 */
bool
sgt_engine_open(const HttpConfig *config)
{
	bool		ok;

	if (engine.ready && engine.trust == config->trust)
		return true;
	sgt_engine_discard();

	if (!engine.initialized)
	{
		const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

		if (info->version_num < MIN_LIBCURL_VERSION ||
			!(info->features & CURL_VERSION_ASYNCHDNS) ||
			!(info->features & CURL_VERSION_SSL))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("libcurl %s cannot be used", info->version),
					 errdetail("Needed is version 7.87 or newer with TLS and name look-ups that can be interrupted.")));
	}

	block_signals();
	ok = open_engine();
	restore_signals();
	if (!engine.initialized)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("libcurl could not be initialized")));
	if (!ok)
	{
		sgt_engine_discard();
		return false;
	}

	engine.wait_event = sgt_new_wait_event("SwGuestTokenRequest");
	engine.wait_set = sgt_create_wait_event_set(3);
	AddWaitEventToSet(engine.wait_set, WL_LATCH_SET, PGINVALID_SOCKET,
					  MyLatch, NULL);
	AddWaitEventToSet(engine.wait_set, WL_SOCKET_READABLE, engine.mux.fd,
					  NULL, NULL);
	if (IsUnderPostmaster)		/* breaks the set in single-user mode */
		AddWaitEventToSet(engine.wait_set, WL_EXIT_ON_PM_DEATH,
						  PGINVALID_SOCKET, NULL, NULL);
	engine.trust = config->trust;
	engine.ready = true;
	return true;
}

/*
 * Opens what belongs to libcurl; false if that is not possible.
 *
 * libcurl is initialised here and not in _PG_init(): that may run in the
 * postmaster, whose children must not inherit a library that has threads.
 */
static bool
open_engine(void)
{
	if (!engine.initialized)
		engine.initialized = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	if (!engine.initialized)
		return false;

	for (int i = 0; i < ENGINE_DESCRIPTORS; i++)
		ReserveExternalFD();
	engine.descriptors_booked = true;
	return sgt_mux_open(&engine.mux) && open_multi() && can_open_one_more();
}

/*
 * Whether a wait event set will get its descriptor: for want of one it would
 * raise an error that says little.
 */
static bool
can_open_one_more(void)
{
	int			fd;

	if (!AcquireExternalFD())
		return false;
	ReleaseExternalFD();
	fd = dup(engine.mux.fd);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/*
 * Makes the handle that has the connections; false if that is not possible.
 */
static bool
open_multi(void)
{
	engine.timer_us = NEVER;
	engine.multi = curl_multi_init();
	if (engine.multi == NULL)
		return false;
	curl_multi_setopt(engine.multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(engine.multi, CURLMOPT_TIMERFUNCTION, set_timer);
#if LIBCURL_VERSION_NUM >= 0x081400
	/* never wait for the threads of name look-ups */
	curl_multi_setopt(engine.multi, CURLMOPT_QUICK_EXIT, 1L);
#endif
	return true;
}

/*
 * After a batch: keeps what a single call needs, drops what a large batch
 * has left behind.
 */
void
sgt_engine_tidy(void)
{
	drop_transfers(1);

	/* connections that ended together were not closed as the batch drained */
	if (engine.n_sockets > MAX_KEPT_CONNECTIONS)
		sgt_engine_discard();
}

/*
 * Closes and frees everything, whatever state it is in.  Raises nothing.
 */
void
sgt_engine_discard(void)
{
	drop_transfers(0);
	if (engine.multi)
	{
		block_signals();
		curl_multi_cleanup(engine.multi);
		restore_signals();
	}
	engine.multi = NULL;
	if (engine.wait_set)
		FreeWaitEventSet(engine.wait_set);
	engine.wait_set = NULL;
	sgt_mux_close(&engine.mux);
	for (int i = 0; engine.descriptors_booked && i < ENGINE_DESCRIPTORS; i++)
		ReleaseExternalFD();
	engine.descriptors_booked = false;
	Assert(engine.n_sockets == 0);
	engine.timer_us = NEVER;
	engine.n_look_ups = 0;
	engine.failed = false;
	engine.ready = false;
}

static void
drop_transfers(int n_kept)
{
	for (int i = n_kept; i < sgt_n_transfers; i++)
	{
		/* does nothing to a handle that was removed already */
		if (sgt_transfers[i]->easy)
			curl_multi_remove_handle(engine.multi, sgt_transfers[i]->easy);
	}
	sgt_free_transfers(n_kept);
}

/*
 * Attempts
 */

/*
 * Gives a handle what it needs to live in a backend; false if memory is short.
 */
bool
sgt_engine_adopt(Transfer *t)
{
	CURL	   *easy = t->easy;

	return
	/* SIGALRM is PostgreSQL's */
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	/* never wait for a name look-up's thread */
		curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_RESOLVER_START_FUNCTION,
						 start_look_up) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_RESOLVER_START_DATA, t) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION,
						 open_socket) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION,
						 close_socket) == CURLE_OK;
}

/*
 * Lets libcurl start an attempt; false if memory is short.
 */
bool
sgt_engine_start(Transfer *t, const HttpConfig *config, bool wait_for_others)
{
	return sgt_transfer_prepare(t, config, wait_for_others) &&
		curl_multi_add_handle(engine.multi, t->easy) == CURLM_OK;
}

/*
 * Takes an attempt away from libcurl, which closes its connection unless the
 * attempt is done.
 */
void
sgt_engine_stop(Transfer *t)
{
	curl_multi_remove_handle(engine.multi, t->easy);
}

/*
 * Turns
 */

/*
 * Everything that enters libcurl during a batch does so in a turn, which
 * these two enclose.
 */
void
sgt_engine_begin_turn(void)
{
	if (engine.n_look_ups > 0)
		block_signals();
}

void
sgt_engine_end_turn(void)
{
	restore_signals();
}

/*
 * Gives libcurl a turn; true if any socket was ready.  "max_connections" bounds those that are kept in
 * mind while the batch runs, so that a draining one closes what the next
 * would not need.
 */
bool
sgt_engine_perform(bool sockets_ready, int max_connections)
{
	bool		any_ready = false;

	curl_multi_setopt(engine.multi, CURLMOPT_MAXCONNECTS,
					  (long) Max(max_connections, MAX_KEPT_CONNECTIONS));
	if (sockets_ready)
		any_ready = perform_sockets() > 0;
	perform_timers();
	return any_ready;
}

static int
perform_sockets(void)
{
	MuxEvent	ready[MAX_READY];
	int			n = sgt_mux_ready(&engine.mux, ready, MAX_READY);
	int			n_running;

	for (int i = 0; i < n; i++)
	{
		int			what = 0;

		if (ready[i].events & MUX_READ)
			what |= CURL_CSELECT_IN;
		if (ready[i].events & MUX_WRITE)
			what |= CURL_CSELECT_OUT;
		if (ready[i].events & MUX_ERROR)
			what |= CURL_CSELECT_ERR;
		if (curl_multi_socket_action(engine.multi, ready[i].socket, what,
									 &n_running) != CURLM_OK)
			engine.failed = true;

		/* the others are still ready at the next turn */
		if (InterruptPending)
			break;
	}
	return n;
}

/*
 * libcurl asks for a turn at once to go on with what it could do right away,
 * several times for one request.
 */
static void
perform_timers(void)
{
	int64		now = sgt_now_us();

	for (int i = 0; i < MAX_TIMER_TURNS && engine.timer_us <= now; i++)
	{
		int			n_running;

		engine.timer_us = NEVER;
		if (curl_multi_socket_action(engine.multi, CURL_SOCKET_TIMEOUT, 0,
									 &n_running) != CURLM_OK)
			engine.failed = true;
	}
}

/*
 * The next transfer whose attempt is done, and how; NULL if there is none.
 */
Transfer   *
sgt_engine_next_done(CURLcode *code)
{
	CURLMsg    *message;
	int			n_left;
	Transfer   *t;

	do
	{
		message = curl_multi_info_read(engine.multi, &n_left);
		if (message == NULL)
			return NULL;
	} while (message->msg != CURLMSG_DONE);

	*code = message->data.result;
	curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
	t->code = *code;
	if (t->looks_up && *code == CURLE_OK)
	{
		t->looks_up = false;
		engine.n_look_ups--;
	}
	if (t->reason[0] == '\0' && *code != CURLE_OK)
		strlcpy(t->reason, curl_easy_strerror(*code), sizeof(t->reason));
	return t;
}

/*
 * Closes the connections that are kept alive, to be called when no attempt is
 * running; false if there are none.
 */
bool
sgt_engine_drop_idle(void)
{
	if (engine.n_sockets == 0)
		return false;
	block_signals();
	curl_multi_cleanup(engine.multi);
	if (!open_multi())
		engine.failed = true;
	return !engine.failed;
}

/*
 * Raises an error if libcurl cannot go on.
 */
void
sgt_engine_check(void)
{
	if (engine.failed)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("libcurl is out of memory or descriptors")));
}

/*
 * Sleeps until a socket is ready, which returns true, or the latch is set, or
 * libcurl or the caller wants to wake up.  Interrupts are the caller's.
 */
bool
sgt_engine_wait(int64 wake_us)
{
	WaitEvent	events[3];
	int64		now = sgt_now_us();
	bool		sockets_ready = false;
	int			n;

	/* rounded up: to wake early would only mean to sleep again */
	wake_us = Min(wake_us, engine.timer_us);
	n = WaitEventSetWait(engine.wait_set,
						 wake_us <= now ? 0 :
						 Min((wake_us - now + 999) / 1000, INT_MAX),
						 events, lengthof(events), engine.wait_event);
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (events[i].events & WL_SOCKET_READABLE)
			sockets_ready = true;
	}
	return sockets_ready;
}

/*
 * libcurl's callbacks
 */

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
	Transfer   *t = arg;
	curl_socket_t sock;

	(void) purpose;
	if (!AcquireExternalFD())
	{
		t->no_descriptor = true;
		return CURL_SOCKET_BAD;
	}
	sock = socket(addr->family, addr->socktype, addr->protocol);
	if (sock == CURL_SOCKET_BAD)
	{
		t->no_descriptor = errno == EMFILE || errno == ENFILE;
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	if (!sgt_mux_add(&engine.mux, sock))
	{
		t->no_memory = true;
		close(sock);
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	(void) fcntl(sock, F_SETFD, FD_CLOEXEC);
	engine.n_sockets++;
	t->socket = sock;
	t->is_sent = false;			/* libcurl may try again by itself */
	return sock;
}

static int
close_socket(void *arg, curl_socket_t sock)
{
	(void) arg;
	sgt_mux_remove(&engine.mux, sock);
	engine.n_sockets--;
	ReleaseExternalFD();
	return close(sock);
}

static int
watch_socket(CURL *easy, curl_socket_t sock, int what, void *arg,
			 void *socket_arg)
{
	int			events = 0;
	Transfer   *t = NULL;

	(void) arg;
	(void) socket_arg;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= MUX_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= MUX_WRITE;

	/* it is read from only when it is connected, which libcurl does not tell */
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t);
	if (t && t->socket == sock && events & MUX_READ && t->connected_us == 0)
		t->connected_us = sgt_now_us();

	if (!sgt_mux_watch(&engine.mux, sock, events))
		engine.failed = true;
	return 0;
}

static int
set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	(void) multi;
	(void) arg;
	engine.timer_us = timeout_ms < 0 ? NEVER : timeout_ms == 0 ? 0 :
		sgt_now_us() + timeout_ms * INT64CONST(1000);
	return 0;
}

/*
 * A name look-up is about to start.  It is over for sure only with an attempt
 * that was a success: the thread of one that was given up may go on, and
 * others may wait for it to end.  Until the engine is discarded signals are
 * then blocked in every turn.
 *
 * To do so always would take 5 us of the 60 us of a call over the loopback
 * interface, two system calls for each of two turns.
 */
static int
start_look_up(void *resolver, void *reserved, void *arg)
{
	Transfer   *t = arg;

	(void) resolver;
	(void) reserved;
	if (!t->looks_up)
		engine.n_look_ups++;
	t->looks_up = true;
	block_signals();
	return 0;
}

/*
 * Signals and time
 */

static void
block_signals(void)
{
	sigset_t	all;

	if (engine.signals_blocked)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &engine.saved_signals);
	engine.signals_blocked = true;
}

static void
restore_signals(void)
{
	if (engine.signals_blocked)
		pthread_sigmask(SIG_SETMASK, &engine.saved_signals, NULL);
	engine.signals_blocked = false;
}

/* Monotonic, in microseconds. */
int64
sgt_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64CONST(1000000) + now.tv_nsec / 1000;
}
