/*-------------------------------------------------------------------------
 * connection.c
 *		Which connection an attempt goes over, and what becomes of it.
 *
 * libcurl chooses the connection: a new one, one that was kept alive, or over
 * HTTP/2 one that others use at the same time.  It also sends requests again
 * by itself.  This file notes its choice, and steps in where it would send
 * too often, wait too long, use a connection that the network has lost, or
 * mistake something else for an answer.
 *
 * Nothing here raises, because libcurl may be on the stack.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>

#include "datatype/timestamp.h"

#include "clock.h"
#include "connection.h"

/* libcurl's defaults. */
#define MAX_STREAMS			100
#define MAX_ADDRESS_AGE_S	60

/* Younger addresses are used again even if they did not work. */
#define MIN_ADDRESS_AGE_S	1

/* Connections made before are not to be used; 0: all may be. */
static int64 distrust_us = 0;

/* When an attempt last ended at a host that does not work; 0: never. */
static int64 misled_us = 0;

/* When a connection was last condemned that others were using; 0: never. */
static int64 condemned_us = 0;

/* Whether there may be an attempt whose response may go to another. */
static bool has_mix_up = false;

/* When an attempt was last answered. */
static int64 answered_us = 0;

static bool is_to_be_left(const Attempt *a, dlist_head *running);
static void note_sharing(Attempt *a, dlist_head *running);
static Attempt *next_companion(const Attempt *a, dlist_head *running,
							   Attempt *previous);
static void note_host_failure(const Attempt *a, dlist_head *running);
static void note_kept_alive(const Attempt *a, dlist_head *running,
							SocketSet *sockets);
static void note_mix_up(const Attempt *a, dlist_head *running, CURLM *multi);
static bool has_left(const Attempt *a);
static int64 last_repeated_us(const Attempt *a);

/*
 * Keeps later attempts from connections that were made before a certain time.
 */
void
sgt_distrust_connections(int64 suspect_us)
{
	distrust_us = Max(distrust_us, suspect_us);
}

/*
 * Keeps an attempt from connections that are not to be used; false if memory
 * is short.
 *
 * libcurl knows how old an idle connection is, but only in seconds, so that
 * one that was made up to two seconds too early may still be used.  It does
 * not look at the age of one that others use over HTTP/2.  So as long as there
 * may be such ones, or condemned ones, no connection is shared.
 */
bool
sgt_avoid_old_connections(const Attempt *a, dlist_head *running, CURLM *multi)
{
	int64		suspect_us = Max(distrust_us, condemned_us);
	bool		may_share;
	CURLcode	code = CURLE_OK;

	if (suspect_us == 0)
		return true;
	may_share = dlist_is_empty(running) ||
		dlist_head_element(Attempt, node, running)->started_us > suspect_us;
	curl_multi_setopt(multi, CURLMOPT_MAX_CONCURRENT_STREAMS,
					  may_share ? (long) MAX_STREAMS : 1L);
	if (distrust_us != 0)
		code = curl_easy_setopt(a->easy, CURLOPT_MAXLIFETIME_CONN,
								(long) ((sgt_now_us() - distrust_us) / USECS_PER_SEC) + 1);
	if (code == CURLE_OK && !may_share)
		code = curl_easy_setopt(a->easy, CURLOPT_PIPEWAIT, 0L);
	return code == CURLE_OK;
}

/*
 * Makes an attempt look up the host's addresses again if those that libcurl has
 * kept did not work; false if memory is short.
 *
 * The host may have moved.  From 8.16 on, libcurl also keeps the answer that
 * there is no such host.
 */
bool
sgt_avoid_old_addresses(const Attempt *a)
{
	int64		suspect_us = Max(distrust_us, misled_us);
	int64		age_s = (sgt_now_us() - suspect_us) / USECS_PER_SEC;

	return suspect_us == 0 ||
		curl_easy_setopt(a->easy, CURLOPT_DNS_CACHE_TIMEOUT,
						 (long) Max(Min(age_s, MAX_ADDRESS_AGE_S),
									MIN_ADDRESS_AGE_S)) == CURLE_OK;
}

/*
 * To be called before an attempt is taken away from libcurl that has no
 * answer.
 *
 * Nothing says so if the network has lost connections.  So if no other attempt
 * was answered in the second half of the time that this one has waited, all of
 * them are suspect.  (In the first half, the network may still have worked.)
 * If the attempt's connection is HTTP/2, only answers over the same one count.
 * Connections that were made since the last such suspicion are not suspect
 * just because an older one is.
 *
 * Without the option, libcurl would keep the attempt's own one if it is
 * HTTP/2.
 */
void
sgt_note_unanswered(const Attempt *a)
{
	int64		now = sgt_now_us();
	int64		last_us = a->is_shared ? a->other_answered_us : answered_us;

	curl_easy_setopt(a->easy, CURLOPT_FORBID_REUSE, 1L);
	if (a->is_sent && !a->is_mixed_up && a->header_length == 0 &&
		a->sent_us > distrust_us &&
		2 * (now - last_us) > now - a->sent_us)
		sgt_distrust_connections(now);
}

/*
 * Notes that the request is on its way; false if it must not be sent over this
 * connection, or not again.
 *
 * What has arrived since the last answer cannot be the answer to this
 * request: some proxies send a 408 as they close an idle connection.  libcurl
 * looks for such input at most once a second, and up to 7.88 never.
 *
 * Nor does a request join others whose connection leads to a host that does
 * not work.
 *
 * If nothing came back, libcurl sends a request up to five more times, for
 * one of two reasons.  Either the connection existed before, so that the
 * server may have closed it in the meantime; or the server refused the
 * stream, after which libcurl itself closes the connection unless others use
 * it.  We allow the first only once, and over a new connection.  Otherwise a
 * server that takes a request and closes the connection would get the request
 * over each connection that is kept alive.
 *
 * It was a refusal if the connection was shared, which takes HTTP/2, and did
 * not hang up.  (If it was not shared, that proves nothing, because a server
 * may end TLS alone.)  It was also a refusal if the connection was new and
 * nobody else's.  (If another has joined it, even one that was not sent,
 * libcurl treats it as one that existed before.)
 */
bool
sgt_may_send(Attempt *a, dlist_head *running, const SocketSet *sockets,
			 const char *remote_ip, int local_port)
{
	Attempt    *other = NULL;
	long		n_connects = 0;

	curl_easy_getinfo(a->easy, CURLINFO_NUM_CONNECTS, &n_connects);
	a->local_port = local_port;
	strlcpy(a->remote_ip, remote_ip, sizeof(a->remote_ip));
	while ((other = next_companion(a, running, other)))
		other->is_joined = true;
	a->is_condemned = is_to_be_left(a, running);
	a->has_strayed = a->is_condemned ||
		(n_connects == a->n_connects &&
		 sgt_has_stray_input(sockets, local_port));
	if (a->has_strayed)
		return false;
	a->is_sent = true;
	a->sent_us = sgt_now_us();
	if (a->n_sent > 0)
	{
		if (a->is_shared ? !a->is_hung_up : a->is_new && !a->is_joined)
			a->is_refused = true;
		else if (a->n_replaced > 0 || n_connects == a->n_connects)
			return false;
		else
			a->n_replaced++;
	}

	a->n_sent++;
	a->repeated_us = last_repeated_us(a);
	a->is_new = n_connects > a->n_connects;
	a->is_joined = false;
	a->is_shared = false;
	a->is_hung_up = false;
	a->n_connects = n_connects;
	note_sharing(a, running);
	return true;
}

static bool
is_to_be_left(const Attempt *a, dlist_head *running)
{
	Attempt    *other = NULL;

	if (condemned_us == 0)
		return false;
	while ((other = next_companion(a, running, other)))
	{
		if (other->is_condemned)
			return true;
	}
	return false;
}

/*
 * Notes which attempts use the same connection at the same time, as is
 * possible only over HTTP/2.  An attempt that has a status may be done, and
 * then others may follow it even over HTTP/1.1; but if so, nothing more comes.
 */
static void
note_sharing(Attempt *a, dlist_head *running)
{
	Attempt    *other = NULL;

	while ((other = next_companion(a, running, other)))
	{
		if (other->status == 0)
			a->is_shared = other->is_shared = true;
		else
			other->is_followed = true;
	}
}

/*
 * The next one, after "previous", of the other attempts that use the same
 * connection; NULL if there is none.
 */
static Attempt *
next_companion(const Attempt *a, dlist_head *running, Attempt *previous)
{
	dlist_node *node = previous ? &previous->node : &running->head;

	while (dlist_has_next(running, node))
	{
		Attempt    *other;

		node = dlist_next_node(running, node);
		other = dlist_container(Attempt, node, node);
		if (other != a && other->local_port == a->local_port &&
			strcmp(other->remote_ip, a->remote_ip) == 0)
			return other;
	}
	return NULL;
}

/*
 * Notes what the end of an attempt says about its connection.
 */
void
sgt_note_end(const Attempt *a, dlist_head *running, SocketSet *sockets,
			 CURLM *multi)
{
	note_host_failure(a, running);
	note_mix_up(a, running, multi);
	if (a->end == ATTEMPT_ANSWERED)
		note_kept_alive(a, running, sockets);
}

/*
 * If the attempt found no host that works, the host may have moved.  If the
 * host has answered so, libcurl closes the connection, but only when nobody
 * uses it any more.  What others that do so find is not news.
 */
static void
note_host_failure(const Attempt *a, dlist_head *running)
{
	Attempt    *other = NULL;

	if (sgt_is_outage(a->status))
	{
		misled_us = a->ended_us;
		while ((other = next_companion(a, running, other)))
		{
			other->is_condemned = true;
			condemned_us = a->ended_us;
		}
	}
	else if (!a->is_sent && a->end != ATTEMPT_ABANDONED)
		misled_us = a->ended_us;
}

/*
 * An answered attempt leaves its connection to the next one.  Until that is
 * sent, nothing may arrive over HTTP/1.1; HTTP/2 has frames of its own.
 */
static void
note_kept_alive(const Attempt *a, dlist_head *running, SocketSet *sockets)
{
	Attempt    *other = NULL;

	answered_us = a->ended_us;
	while ((other = next_companion(a, running, other)))
		other->other_answered_us = a->ended_us;
	if (sgt_is_http1(a))
		sgt_note_idle(sockets, a->watched, a->local_port);
}

/*
 * Whether an attempt that libcurl has ended may have got a part of another's
 * response.  Then it fails, because that is no beginning of a response.
 */
bool
sgt_may_be_mixed_up(const Attempt *a, CURLcode code, dlist_head *running)
{
	Attempt    *other = NULL;

	if (code == CURLE_OK)
		return false;
	if (a->is_shared && (sgt_is_http1(a) ||
						 code == CURLE_UNSUPPORTED_PROTOCOL ||
						 code == CURLE_WEIRD_SERVER_REPLY))
		return true;
	while ((other = next_companion(a, running, other)))
	{
		if (other->is_followed && sgt_is_http1(other))
			return true;
	}
	return false;
}

/*
 * If the attempt is mixed up, it has got a response over HTTP/1.1 although
 * others use its connection, too, and nobody knows whose response it is.  If it
 * leaves half of one behind, others get that.
 *
 * That is a fault of libcurl up to 8.4.  If it knows that a host speaks HTTP/2,
 * requests join any connection to it that is in use, or is being made.  It may
 * not be HTTP/2 if the host's name stands for several that differ, or if the
 * host's configuration changes.  So no attempt over that connection is
 * answered, and libcurl shares none from now on.
 */
static void
note_mix_up(const Attempt *a, dlist_head *running, CURLM *multi)
{
	Attempt    *other = NULL;

	if (!a->is_mixed_up &&
		!(a->is_followed && a->end != ATTEMPT_ANSWERED && sgt_is_http1(a)))
		return;
	while ((other = next_companion(a, running, other)))
		other->is_mixed_up = true;
	has_mix_up = true;
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);
}

/* An attempt whose response may go to another; NULL if there is none. */
Attempt    *
sgt_find_mixed_up(dlist_head *running)
{
	dlist_iter	iter;

	if (!has_mix_up)
		return NULL;
	dlist_foreach(iter, running)
	{
		Attempt    *a = dlist_container(Attempt, node, iter.cur);

		if (a->is_mixed_up)
			return a;
	}
	has_mix_up = false;
	return NULL;
}

/*
 * Notes the attempts whose connection the other side has ended.  A connection
 * that we have cut no longer has a port.
 *
 * From 8.9 on libcurl closes connections in the background, and waits until
 * the other side does so, too.  Attempts that have left by then are
 * unaffected.
 */
void
sgt_note_hang_up(dlist_head *running, int local_port)
{
	dlist_iter	iter;

	dlist_foreach(iter, running)
	{
		Attempt    *a = dlist_container(Attempt, node, iter.cur);

		if (!has_left(a))
			a->is_hung_up |= local_port == 0 || local_port == a->local_port;
	}
}

/*
 * Whether libcurl has given up the connection in order to send the request
 * again.
 */
static bool
has_left(const Attempt *a)
{
	return a->n_sent > 0 && last_repeated_us(a) != a->repeated_us;
}

/* When libcurl last decided to send it again, by its own clock; 0: never. */
static int64
last_repeated_us(const Attempt *a)
{
	curl_off_t	repeated_us = 0;

	curl_easy_getinfo(a->easy, CURLINFO_REDIRECT_TIME_T, &repeated_us);
	return repeated_us;
}

/*
 * Restarts attempts that still wait to see whether a connection to their
 * target is HTTP/2, although one is up and is not.  libcurl (from 8.14 on, if
 * not earlier) would let them wait for the response that comes over it.
 * False if libcurl fails.
 */
bool
sgt_restart_waiting(dlist_head *running, const Target *target, CURLM *multi)
{
	dlist_iter	iter;

	dlist_foreach(iter, running)
	{
		Attempt    *a = dlist_container(Attempt, node, iter.cur);

		if (a->target != target || !sgt_waits_for_another(a))
			continue;
		curl_multi_remove_handle(multi, a->easy);
		curl_easy_setopt(a->easy, CURLOPT_PIPEWAIT, 0L);
		if (curl_multi_add_handle(multi, a->easy) != CURLM_OK)
			return false;
	}
	return true;
}
