/*-------------------------------------------------------------------------
 * engine.c
 *		libcurl in a backend: its handles, sockets, timer and signals.
 *
 * It knows how libcurl and the server live together.  It does not know what a
 * request says (attempt.c), and knows nothing of deadlines (drive.c) or
 * batches (batch.c).
 *
 * libcurl itself never waits.  It says which sockets it wants to hear from
 * and until when, and the backend sleeps on its latch, the postmaster's death
 * and all those sockets at once.  A backend has one engine, which serves all
 * open batches.  It lives as long as the backend, and so do the connections
 * that it keeps alive.
 *
 * 1. No ereport() while libcurl is on the stack.  A callback that fails
 *    leaves a note in its attempt and returns libcurl's failure value, or
 *    leaves it in the engine if libcurl has no use for such a value.  So an
 *    error always finds the engine in order, and ends only the requests of
 *    its batch.
 * 2. All signals are blocked, once a turn, while libcurl may start a thread or
 *    touch a connection: a thread, for a name look-up, inherits the mask, and
 *    PostgreSQL's handlers must not run there.  Only the watchdog's is let
 *    through.
 * 3. Every socket that libcurl opens is booked with fd.c, one for one.
 *    libcurl (7.88, for one) does not tell us when it closes some that were
 *    never connected, so we look for those at the end of the turn.  (It uses
 *    two more during a name look-up that it does not report at all.)
 * 4. libcurl's memory is malloc's, never palloc's: its threads use it, too.
 * 5. If libcurl cannot go on, all attempts end with that as their outcome.
 *    The engine is replaced once no batch has an attempt.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "clock.h"
#include "compat.h"
#include "connection.h"
#include "engine.h"
#include "libcurl.h"
#include "messages.h"
#include "socketset.h"
#include "watchdog.h"

/* Idle connections that a backend keeps, as many as a batch has by default. */
#define MAX_KEPT_CONNECTIONS	16

/* Descriptors that the engine holds: the socket set, libcurl's wake-up pair. */
#define ENGINE_DESCRIPTORS	3

/*
 * How long the ready sockets may take before we look at interrupts again:
 * each may bring a TLS handshake, or a long body.  The rest have their turn
 * after that.
 */
#define MAX_TURN_US			(50 * 1000)

/*
 * Once stopping attempts has taken this long, connections are cut first,
 * because TLS reads what has arrived before it closes a connection.
 */
#define MAX_STOPPING_US		(250 * 1000)

/*
 * After this many sleeps in a row, of any length, without the end of an
 * attempt, each sleep is a pause of IDLE_PAUSE_MS: no response has that many
 * parts.
 */
#define MAX_IDLE_SLEEPS		1000
#define IDLE_PAUSE_MS		10

/* libcurl may be newer than its headers: this is its number from 8.20 on. */
#if LIBCURL_VERSION_NUM < 0x081400
#define CURLMOPT_QUICK_EXIT	((CURLMoption) (CURLOPTTYPE_LONG + 21))
#endif

/* How long libcurl may forget an attempt that is connecting. */
#define NUDGE_US			(500 * 1000)

/* How often libcurl may ask for another turn at once. */
#define MAX_TIMER_TURNS		64

static struct
{
	bool		is_ready;
	bool		has_failed;		/* libcurl cannot go on */
	uint64		trust_number;	/* of the authorities that libcurl keeps */
	CURLM	   *multi;
	SocketSet	sockets;
	bool		descriptors_booked;
	WaitEventSet *wait_set;
	uint32		wait_event;
	uint32		pause_event;	/* when no attempt is running */
	int			n_sockets;		/* that libcurl has open */
	bool		may_have_lost;	/* some of them may have been closed */
	int64		timer_us;		/* when libcurl wants a turn anyway */
	int64		stopping_us;	/* spent on stopping attempts, in this turn */
	const Target *connected_to; /* by a new connection, in this turn */
	int64		nudge_us;		/* when attempts may be stuck */

	int			n_idle_sleeps;	/* since an attempt last ended */
	bool		is_turn;		/* one has begun */

	int			n_taken;		/* attempts that a batch has */
	dlist_head	running;		/* of these, those that libcurl has */
	dlist_head	idle;			/* those that no batch has, to be reused */
}			engine = {

	.sockets.fd = -1,
	.timer_us = NEVER,
	.nudge_us = NEVER,
	.running = DLIST_STATIC_INIT(engine.running),
	.idle = DLIST_STATIC_INIT(engine.idle)
};

static bool open_parts(void);
static bool can_open_one_more(void);
static bool open_multi(void);
static void close_multi(void);
static void discard(void);
static void free_attempts(int n_kept);
static void end_attempt(Attempt *a, AttemptEnd end, CURLcode code);
static bool adopt(Attempt *a);
static int	perform_sockets(void);
static void act(curl_socket_t sock, int what);
static void cut_connections(void);
static void perform_timers(void);
static void nudge_connecting(void);
static int	may_send(void *arg, char *remote_ip, char *local_ip,
					 int remote_port, int local_port);
static void find_lost_sockets(void);
static void forget_socket(curl_socket_t sock);
static curl_socket_t open_socket(void *arg, curlsocktype purpose,
								 struct curl_sockaddr *addr);
static int	close_socket(void *arg, curl_socket_t sock);
static int	watch_socket(CURL *easy, curl_socket_t sock, int what, void *arg,
						 void *socket_arg);
static int	note_timer(CURLM *multi, long timeout_ms, void *arg);

/*
 * The engine's life
 */

/*
 * Makes the engine ready, if it is not yet; false if there is no descriptor
 * left for that.
 *
 * libcurl mostly reads the certificate authorities once, and keeps them for a
 * day: reading them for each connection would cost a batch over TLS tens of
 * milliseconds per connection.  When they change, so does the trust number,
 * and the engine starts afresh as soon as nobody uses it.
 */
bool
sgt_open_engine(uint64 trust_number)
{
	bool		is_outdated = engine.has_failed ||
	engine.trust_number != trust_number;

	if (engine.is_ready && (!is_outdated || engine.n_taken > 0))
		return true;
	discard();
	sgt_initialize_libcurl();
	if (!open_parts())
	{
		discard();
		return false;
	}

	engine.wait_event = sgt_new_wait_event("SwGuestTokenRequest");
	engine.pause_event = sgt_new_wait_event("SwGuestTokenPause");
	engine.wait_set = sgt_create_wait_event_set(3);
	AddWaitEventToSet(engine.wait_set, WL_LATCH_SET, PGINVALID_SOCKET,
					  MyLatch, NULL);
	AddWaitEventToSet(engine.wait_set, WL_SOCKET_READABLE, engine.sockets.fd,
					  NULL, NULL);
	if (IsUnderPostmaster)		/* breaks the set in single-user mode */
		AddWaitEventToSet(engine.wait_set, WL_EXIT_ON_PM_DEATH,
						  PGINVALID_SOCKET, NULL, NULL);
	engine.trust_number = trust_number;
	engine.is_ready = true;
	return true;
}

/* Opens libcurl and the socket set; false if that is not possible. */
static bool
open_parts(void)
{
	bool		ok;

	for (int i = 0; i < ENGINE_DESCRIPTORS; i++)
		ReserveExternalFD();
	engine.descriptors_booked = true;

	sgt_begin_turn();
	ok = sgt_open_sockets(&engine.sockets) && open_multi() &&
		can_open_one_more();
	sgt_end_turn();
	return ok;
}

/*
 * Whether there is a descriptor for a wait event set, whose own error would
 * say little.
 */
static bool
can_open_one_more(void)
{
	if (!AcquireExternalFD())
		return false;
	ReleaseExternalFD();
	return sgt_has_spare_descriptor(&engine.sockets);
}

/* Makes the handle with the connections; false if that is not possible. */
static bool
open_multi(void)
{
	engine.multi = curl_multi_init();
	if (engine.multi == NULL)
		return false;
	curl_multi_setopt(engine.multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(engine.multi, CURLMOPT_TIMERFUNCTION, note_timer);
	/* never wait for the threads of name look-ups; an older libcurl says no */
	curl_multi_setopt(engine.multi, CURLMOPT_QUICK_EXIT, 1L);
	return true;
}

/*
 * Closes that handle and all connections.  They are cut first, because TLS
 * reads from a connection that it closes, and a server could send without
 * end.
 */
static void
close_multi(void)
{
	cut_connections();
	curl_multi_cleanup(engine.multi);
	engine.multi = NULL;
	engine.timer_us = NEVER;
	engine.may_have_lost = true;
}

/*
 * To be called when no batch is open any more: keeps what a single call
 * needs, and drops what a large batch has left behind.
 */
void
sgt_tidy_engine(void)
{
	Assert(engine.n_taken == 0);
	free_attempts(1);

	/* a target that only this attempt has pinned is outdated */
	if (!dlist_is_empty(&engine.idle))
	{
		Attempt    *a = dlist_head_element(Attempt, node, &engine.idle);

		if (a->target && a->target->n_pins == 1)
			free_attempts(0);
	}

	/* connections that ended together were not closed as the batch drained */
	if (engine.n_sockets > MAX_KEPT_CONNECTIONS)
		discard();
}

/* Closes and frees everything.  No batch may have an attempt. */
static void
discard(void)
{
	sgt_begin_turn();
	free_attempts(0);
	if (engine.multi)
		close_multi();
	sgt_end_turn();
	if (engine.wait_set)
		FreeWaitEventSet(engine.wait_set);
	engine.wait_set = NULL;
	sgt_close_sockets(&engine.sockets);
	for (int i = 0; engine.descriptors_booked && i < ENGINE_DESCRIPTORS; i++)
		ReleaseExternalFD();
	engine.descriptors_booked = false;
	Assert(engine.n_sockets == 0);
	engine.has_failed = false;
	engine.is_ready = false;
}

/*
 * Attempts
 */

/*
 * Gives an attempt to a batch, for one of its requests; NULL if memory is
 * short.
 */
Attempt    *
sgt_take_attempt(void *owner)
{
	Attempt    *a;

	if (dlist_is_empty(&engine.idle))
		a = calloc(1, sizeof(Attempt));
	else
		a = dlist_container(Attempt, node, dlist_pop_head_node(&engine.idle));
	if (a == NULL)
		return NULL;
	a->owner = owner;
	if (engine.n_taken++ == 0)
		sgt_start_watchdog(cut_connections);
	return a;
}

/* Takes back an attempt that is not running. */
void
sgt_release_attempt(Attempt *a)
{
	a->owner = NULL;
	dlist_push_head(&engine.idle, &a->node);
	if (--engine.n_taken == 0)
		sgt_stop_watchdog();
}

static void
free_attempts(int n_kept)
{
	dlist_mutable_iter iter;
	int			n = 0;

	dlist_foreach_modify(iter, &engine.idle)
	{
		if (++n > n_kept)
		{
			dlist_delete(iter.cur);
			sgt_free_attempt(dlist_container(Attempt, node, iter.cur));
		}
	}
}

/*
 * Lets libcurl start an attempt; false if that is not possible, and then the
 * attempt's "end" says why.
 */
bool
sgt_start_attempt(Attempt *a, const AttemptOptions *options)
{
	bool		is_fit = engine.is_ready && !engine.has_failed;

	if (!is_fit || !sgt_prepare_attempt(a, options) ||
		!sgt_avoid_old_connections(a, &engine.running, engine.multi) ||
		!sgt_avoid_old_addresses(a) ||
		(!a->is_adopted && !adopt(a)) ||
		curl_multi_add_handle(engine.multi, a->easy) != CURLM_OK)
	{
		a->end = is_fit ? ATTEMPT_NO_MEMORY : ATTEMPT_ENGINE_FAILED;
		return false;
	}
	dlist_push_tail(&engine.running, &a->node);
	return true;
}

/*
 * Gives a handle what it needs to live in a backend; false if memory is
 * short.  No signals, because SIGALRM is PostgreSQL's; and a quick exit, so
 * that nobody waits for the thread of a name look-up.
 */
static bool
adopt(Attempt *a)
{
	CURL	   *easy = a->easy;

	a->is_adopted =
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION,
						 may_send) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PREREQDATA, a) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION,
						 open_socket) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, a) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION,
						 close_socket) == CURLE_OK;
	return a->is_adopted;
}

/*
 * Takes an attempt away from libcurl before its end, which closes its
 * connection unless others use it.
 */
void
sgt_stop_attempt(Attempt *a, AttemptEnd end)
{
	int64		start_us = sgt_now_us();

	if (engine.stopping_us > MAX_STOPPING_US)
		cut_connections();
	sgt_note_unanswered(a);
	end_attempt(a, end, CURLE_OK);
	engine.stopping_us += sgt_now_us() - start_us;
}

/*
 * Notes how an attempt has ended, and takes its handle back, which may close
 * its connection.
 */
static void
end_attempt(Attempt *a, AttemptEnd end, CURLcode code)
{
	sgt_note_attempt_end(a, end, code);
	sgt_note_end(a, &engine.running, &engine.sockets, engine.multi);
	/* a socket that made no connection may have been closed unreported */
	engine.may_have_lost |= a->n_sockets != a->n_connects;
	engine.n_idle_sleeps = 0;
	dlist_delete(&a->node);
	sgt_begin_watched_call();
	curl_multi_remove_handle(engine.multi, a->easy);
	sgt_end_watched_call();
}

/*
 * The next attempt that has ended, which libcurl then no longer has; NULL if
 * there is none.
 */
Attempt    *
sgt_next_ended(void)
{
	int			n_left;
	CURLMsg    *message = curl_multi_info_read(engine.multi, &n_left);
	Attempt    *a;

	if (message == NULL)
	{
		a = engine.has_failed && !dlist_is_empty(&engine.running) ?
			dlist_head_element(Attempt, node, &engine.running) :
			sgt_find_mixed_up(&engine.running);
		if (a)
			sgt_stop_attempt(a, engine.has_failed ? ATTEMPT_ENGINE_FAILED :
							 ATTEMPT_BROKEN);
		return a;
	}

	curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &a);
	a->is_mixed_up |= sgt_may_be_mixed_up(a, message->data.result,
										  &engine.running);
	end_attempt(a, sgt_classify_attempt(a, message->data.result),
				message->data.result);
	return a;
}

/*
 * Turns
 */

/*
 * These enclose a turn: everything that enters libcurl and may start a thread
 * or touch a connection happens in one.  Turns must not be nested, because
 * there is only one place to save the signal mask.
 */
void
sgt_begin_turn(void)
{
	engine.stopping_us = 0;
	Assert(!engine.is_turn);
	engine.is_turn = true;
	sgt_block_signals();
}

void
sgt_end_turn(void)
{
	if (engine.may_have_lost)
		find_lost_sockets();
	sgt_restore_signals();
	engine.is_turn = false;
}

/*
 * Gives libcurl a turn; true if any socket was ready.  "n_pending" requests
 * may still use a connection; more are closed as batches drain, unless the
 * next batch would need them.
 */
bool
sgt_perform(bool sockets_ready, int n_pending)
{
	bool		any_ready = false;

	curl_multi_setopt(engine.multi, CURLMOPT_MAXCONNECTS,
					  (long) Max(n_pending, MAX_KEPT_CONNECTIONS));
	if (sockets_ready)
		any_ready = perform_sockets() > 0;
	perform_timers();
	if (engine.connected_to &&
		!sgt_restart_waiting(&engine.running, engine.connected_to, engine.multi))
		engine.has_failed = true;
	engine.connected_to = NULL;
	if (engine.nudge_us <= sgt_now_us())
		nudge_connecting();
	return any_ready;
}

static int
perform_sockets(void)
{
	int64		start_us = sgt_now_us();
	SocketEvent ready[MAX_READY_SOCKETS];
	int			n = sgt_ready_sockets(&engine.sockets, ready);

	StaticAssertStmt(SOCKET_READ == CURL_CSELECT_IN &&
					 SOCKET_WRITE == CURL_CSELECT_OUT &&
					 SOCKET_ERROR == CURL_CSELECT_ERR, "events differ");
	for (int i = 0; i < n && sgt_now_us() - start_us < MAX_TURN_US; i++)
	{
		/* once libcurl has seen it, the attempts have left the connection */
		if (ready[i].is_hung_up)
			sgt_note_hang_up(&engine.running, sgt_local_port(ready[i].socket));
		act(ready[i].socket, ready[i].events);
	}
	return n;
}

/*
 * Several times during one request, libcurl asks for another turn at once, for
 * work that it could do right away.
 */
static void
perform_timers(void)
{
	int64		now = sgt_now_us();

	for (int i = 0; i < MAX_TIMER_TURNS && engine.timer_us <= now &&
		 sgt_now_us() - now < MAX_TURN_US; i++)
	{
		engine.timer_us = NEVER;
		act(CURL_SOCKET_TIMEOUT, 0);
	}
}

/*
 * Wakes attempts that are connecting: it may be time for the next address.
 * libcurl 7.88 misses that when it has given up on one (it wakes up if a
 * transfer is no longer paused), and when all of the other IP version failed.
 */
static void
nudge_connecting(void)
{
	dlist_iter	iter;

	engine.nudge_us = NEVER;
	dlist_foreach(iter, &engine.running)
	{
		Attempt    *a = dlist_container(Attempt, node, iter.cur);

		if (a->is_sent || a->n_sockets == 0 || a->connected_us != 0)
			continue;
		engine.nudge_us = Min(engine.nudge_us, sgt_now_us() + NUDGE_US);
		if (a->socket != CURL_SOCKET_BAD)
			act(a->watched, 0);
		else
		{
			curl_easy_pause(a->easy, CURLPAUSE_ALL);
			curl_easy_pause(a->easy, CURLPAUSE_CONT);
		}
	}
}

static void
act(curl_socket_t sock, int what)
{
	int			n_running;

	sgt_begin_watched_call();
	if (curl_multi_socket_action(engine.multi, sock, what,
								 &n_running) != CURLM_OK)
		engine.has_failed = true;
	sgt_end_watched_call();
}

/*
 * Cuts all connections, which ends whatever reads from them.  The watchdog
 * calls this, too, in its signal handler.
 */
static void
cut_connections(void)
{
	sgt_cut_sockets(&engine.sockets);
}

/*
 * Closes the connections that are kept alive, to be called when no attempt is
 * running; false if there are none.
 */
bool
sgt_drop_idle_connections(void)
{
	Assert(dlist_is_empty(&engine.running));
	if (engine.n_sockets == 0)
		return false;
	sgt_begin_turn();
	close_multi();
	engine.has_failed = !open_multi();
	sgt_end_turn();
	return !engine.has_failed;
}

/*
 * Sleeps until a socket is ready, the latch is set, or libcurl or the caller
 * wants to wake up.  "wake_us" is when the caller wants to, and afterwards when
 * the sleep was due to end.  Returns true if sockets may be ready.  Interrupts
 * are left to the caller.
 */
bool
sgt_wait_for_engine(int64 *wake_us)
{
	WaitEvent	events[3];
	int64		now = sgt_now_us();
	bool		sockets_ready = false;
	int			n;

	/*
	 * Some servers make libcurl ask for turn after turn, or wait until it can
	 * write what it must not send yet.
	 */
	if (engine.n_idle_sleeps++ > MAX_IDLE_SLEEPS)
	{
		*wake_us = now + IDLE_PAUSE_MS * 1000;
		if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
					  (IsUnderPostmaster ? WL_EXIT_ON_PM_DEATH : 0),
					  IDLE_PAUSE_MS, engine.wait_event) & WL_LATCH_SET)
			ResetLatch(MyLatch);
		return true;
	}

	/* rounded up: waking early would only mean going back to sleep */
	*wake_us = Max(Min(*wake_us, Min(engine.timer_us, engine.nudge_us)), now);
	n = WaitEventSetWait(engine.wait_set,
						 Min((*wake_us - now + 999) / 1000, INT_MAX),
						 events, lengthof(events),
						 dlist_is_empty(&engine.running) ?
						 engine.pause_event : engine.wait_event);
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

/*
 * Called when the connection is up, proxy and TLS included: now the request is
 * on its way.
 */
static int
may_send(void *arg, char *remote_ip, char *local_ip, int remote_port,
		 int local_port)
{
	Attempt    *a = arg;

	(void) local_ip;
	(void) remote_port;
	if (!sgt_may_send(a, &engine.running, &engine.sockets, remote_ip,
					  local_port))
		return CURL_PREREQFUNC_ABORT;
	if (a->is_new)
		engine.connected_to = a->target;
	return CURL_PREREQFUNC_OK;
}

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
	Attempt    *a = arg;
	curl_socket_t sock;

	(void) purpose;
	if (!AcquireExternalFD())
	{
		a->no_descriptor = true;
		return CURL_SOCKET_BAD;
	}
	sock = sgt_open_socket(&engine.sockets, addr->family, addr->socktype,
						   addr->protocol);
	if (sock == CURL_SOCKET_BAD)
		a->no_descriptor = errno == EMFILE || errno == ENFILE;
	else
	{
		forget_socket(sock);	/* one of the same number, long closed */
		if (sgt_add_socket(&engine.sockets, sock))
		{
			engine.n_sockets++;
			a->n_sockets++;
			a->socket = sock;
			a->is_sent = false; /* libcurl may try again by itself */
			engine.nudge_us = Min(engine.nudge_us, sgt_now_us() + NUDGE_US);
			return sock;
		}
		a->no_memory = true;
		close(sock);
	}
	ReleaseExternalFD();
	return CURL_SOCKET_BAD;
}

static int
close_socket(void *arg, curl_socket_t sock)
{
	(void) arg;
	forget_socket(sock);
	return close(sock);
}

/*
 * Gives back the bookings of sockets that were closed unreported, before
 * anybody else gets their numbers.
 */
static void
find_lost_sockets(void)
{
	for (int i = 0; i < engine.sockets.table_size; i++)
	{
		if (sgt_is_socket_lost(&engine.sockets, i))
			forget_socket(i);
	}
	engine.may_have_lost = false;
}

static void
forget_socket(curl_socket_t sock)
{
	if (!sgt_remove_socket(&engine.sockets, sock))
		return;
	engine.n_sockets--;
	ReleaseExternalFD();
}

/*
 * libcurl keeps what the socket is watched for in "socket_arg", and stops
 * watching it before it is closed.
 */
static int
watch_socket(CURL *easy, curl_socket_t sock, int what, void *arg,
			 void *socket_arg)
{
	int			old_events = (int) (intptr_t) socket_arg;
	int			events = 0;
	Attempt    *a = NULL;

	(void) arg;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= SOCKET_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= SOCKET_WRITE;

	/* it is read from only once connected, which libcurl does not report */
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &a);
	if (a && what != CURL_POLL_REMOVE)
		a->watched = sock;
	if (a && a->socket == sock && a->connected_us == 0)
	{
		if (events & SOCKET_READ)
			a->connected_us = sgt_now_us();
		else if (what == CURL_POLL_REMOVE)
		{
			/* it was given up */
			a->socket = CURL_SOCKET_BAD;
			engine.nudge_us = 0;
		}
	}

	if (events == old_events)
		return 0;
	if (!sgt_watch_socket(&engine.sockets, sock, old_events, events))
		engine.has_failed = true;
	if (what != CURL_POLL_REMOVE)
		curl_multi_assign(engine.multi, sock, (void *) (intptr_t) events);
	return 0;
}

static int
note_timer(CURLM *multi, long timeout_ms, void *arg)
{
	(void) multi;
	(void) arg;
	engine.timer_us = timeout_ms < 0 ? NEVER : timeout_ms == 0 ? 0 :
		sgt_now_us() + timeout_ms * INT64CONST(1000);
	return 0;
}
