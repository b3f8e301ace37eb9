/*-------------------------------------------------------------------------
 * attempt.h
 *		One exchange of a request for a response, over one easy handle.
 *
 * The functions are for engine.c.  drive.c also reports attempts and notes
 * gaps, and guard.c asks how long they have waited.  Whoever reads an outcome
 * needs the type AttemptEnd.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_ATTEMPT_H
#define SGT_ATTEMPT_H

#include "postgres.h"

#include "lib/ilist.h"

#include "libcurl.h"
#include "target.h"

/* How an attempt ended, as far as HTTP goes. */
typedef enum AttemptEnd
{
	ATTEMPT_ANSWERED,			/* the whole response is there */
	ATTEMPT_MALFORMED,			/* the response is not HTTP, or is too large */
	ATTEMPT_NOT_CONNECTED,
	ATTEMPT_BAD_CERTIFICATE,
	ATTEMPT_CONNECT_TIMED_OUT,
	ATTEMPT_TIMED_OUT,			/* its owner's deadline passed */
	ATTEMPT_BROKEN,				/* the connection broke before the end */
	ATTEMPT_BAD_CA_FILE,
	ATTEMPT_BAD_URL,			/* libcurl cannot use it, or the proxy's */
	ATTEMPT_NO_DESCRIPTOR,
	ATTEMPT_NO_LOOK_UP,			/* too many abandoned ones are still running */
	ATTEMPT_NO_MEMORY,
	ATTEMPT_ENGINE_FAILED,		/* libcurl cannot go on */
	ATTEMPT_ABANDONED,			/* its owner has changed its mind */

	/* the guard's decisions: requests are not sent, or given up */
	ATTEMPT_SILENT,				/* nobody got an answer */
	ATTEMPT_SUSPENDED,
	ATTEMPT_CROWDED,
	ATTEMPT_OVER_BUDGET
} AttemptEnd;

/* What to send, by POST; what it points to must outlive the attempt. */
typedef struct AttemptOptions
{
	Target	   *target;
	const char *url;
	const char *body;			/* JSON */
	int			connect_timeout_ms; /* name, TCP and TLS together */
	bool		wait_for_others;	/* whose connections may be HTTP/2 */
	bool		is_fresh;		/* use no kept-alive connection */
	bool		is_exam;		/* sgt_examine_attempt() will ask */
} AttemptOptions;

/* Lives in malloc's memory, as libcurl's own does. */
typedef struct Attempt
{
	dlist_node	node;			/* in the list of running attempts, or of idle
								 * ones */
	void	   *owner;

	/* the handle, and what it was configured for */
	CURL	   *easy;
	Target	   *target;			/* pinned; NULL: not configured */
	char	   *url;
	CURLU	   *parsed_url;
	struct curl_slist *headers;
	bool		is_adopted;		/* by the engine, since it was configured */

	/* for the response */
	char	   *body;
	size_t		body_size;		/* what "body" has room for */

	/*
	 * Everything from here on belongs to one exchange, and is reset before
	 * the next.  Its state comes first, as libcurl's callbacks see it.
	 */
	curl_socket_t socket;		/* the last one opened for it, unless that was
								 * given up before it was connected */
	curl_socket_t watched;		/* the last one that libcurl watched for it */
	int64		started_us;
	int64		connected_us;	/* when it connected; TLS may follow */
	int			n_sockets;		/* opened for it */
	bool		is_sent;		/* the request is on its way */
	int64		sent_us;		/* when that was */
	int64		gap_us;			/* when libcurl had its first turn in a long
								 * time; 0: its turns had no gap */
	int64		before_gap_us;	/* when it had the turn before that */
	bool		is_starved;		/* it was about to connect then */
	size_t		length;			/* of what is sent */
	int			n_sent;			/* how often libcurl has sent it */
	int64		repeated_us;	/* when libcurl had last decided to repeat it,
								 * by its own clock, as of sent_us */
	long		n_connects;		/* connections made for it, as of sent_us */
	int			local_port;		/* of the connection that it went over */
	char		remote_ip[64];	/* its other end */
	bool		is_new;			/* the connection was made for it */
	bool		is_joined;		/* by another, which may not have been sent */
	bool		is_shared;		/* others went over it, too: HTTP/2 */
	int64		other_answered_us;	/* when one of them was last answered */
	bool		is_followed;	/* by another, once it had a status */
	bool		is_mixed_up;	/* although it is not HTTP/2: see connection.c */
	bool		is_condemned;	/* one of them found that its host does not
								 * work */
	bool		is_hung_up;		/* the other side has ended it since */
	bool		is_refused;		/* HTTP/2: a stream was left unprocessed */
	bool		has_strayed;	/* its connection turned out to be no good */
	int			n_replaced;		/* how often it was sent again because its
								 * connection was gone */
	bool		has_looked_up;	/* the host's name, or has tried to */
	bool		looks_up_for_proxy; /* to tell a SOCKS proxy the address */
	bool		no_look_up;
	bool		no_descriptor;
	bool		no_memory;
	bool		too_large;
	bool		is_encoded;		/* in a way that nobody asked for */

	/* what came */
	int			status;			/* set when all headers are there; 0: none */
	size_t		header_length;
	size_t		body_length;

	/* when it has ended */
	AttemptEnd	end;
	CURLcode	code;			/* libcurl's; at first, of setting options */
	int64		ended_us;
	bool		ends_refused;	/* HTTP/2: the last stream was, too */
	bool		ends_reset;		/* HTTP/2: the server ended only the stream */
	bool		is_cut_short;	/* it was long, and not all of it was sent */
	const char *phase;			/* what it was doing, to complete "while ..." */
	const char *content_type;	/* NULL: none */
	int64		retry_after_s;	/* 0: none, or not readable */
	char		reason[CURL_ERROR_SIZE];	/* may be empty */
} Attempt;

/*
 * Since when the attempt has been waiting for the other side.  Time that it
 * spent waiting for this side does not count: for authorities to be read, for
 * a processor, or for somebody to give it a turn.
 */
static inline int64
sgt_waiting_since_us(const Attempt *a)
{
	int64		since_us = a->is_sent ? a->sent_us :
	a->connected_us != 0 ? a->connected_us : a->started_us;

	return Max(since_us, a->gap_us);
}

/*
 * Whether the response came over HTTP/1.1, or 1.0.
 */
static inline bool
sgt_is_http1(const Attempt *a)
{
	long		version = 0;

	curl_easy_getinfo(a->easy, CURLINFO_HTTP_VERSION, &version);
	return version == CURL_HTTP_VERSION_1_0 || version == CURL_HTTP_VERSION_1_1;
}

/*
 * Whether the attempt waits, or may wait, for the look-up of the host's name.
 */
static inline bool
sgt_is_looking_up(const Attempt *a)
{
	return !a->is_sent && a->has_looked_up &&
		(a->n_sockets == 0 || a->looks_up_for_proxy);
}

/*
 * Whether the attempt waits for another's connection, which may be HTTP/2.
 */
static inline bool
sgt_waits_for_another(const Attempt *a)
{
	return !a->is_sent && !a->has_looked_up && a->n_sockets == 0;
}

/*
 * Whether a status says that the API does not work: 5xx, but for 500, which may
 * concern the one request.
 */
static inline bool
sgt_is_outage(int status)
{
	return status / 100 == 5 && status != 500;
}

/* These raise nothing. */
extern void sgt_free_attempt(Attempt *a);
extern bool sgt_prepare_attempt(Attempt *a, const AttemptOptions *options);
extern void sgt_note_gap(Attempt *a, int64 since, int64 now);
extern bool sgt_is_sending(const Attempt *a);
extern void sgt_note_attempt_end(Attempt *a, AttemptEnd end, CURLcode code);
extern AttemptEnd sgt_classify_attempt(const Attempt *a, CURLcode code);

/* This may raise, for lack of memory. */
extern void sgt_report_attempt(const Attempt *a, int tag, int number);

#endif							/* SGT_ATTEMPT_H */
