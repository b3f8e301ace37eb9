/*-------------------------------------------------------------------------
 * attempt.h
 *		One exchange of a request for a response, over one easy handle.
 *
 * The functions are for engine.c, except for sgt_report_attempt(), which
 * drive.c calls.  Whoever reads an outcome needs the type AttemptEnd.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_ATTEMPT_H
#define SGT_ATTEMPT_H

#include "postgres.h"

#include <curl/curl.h>

#include "lib/ilist.h"

#include "target.h"

/* CURLOPT_QUICK_EXIT, without which a cancel waits for a name look-up */
#define MIN_LIBCURL_VERSION	0x075700

#if LIBCURL_VERSION_NUM < MIN_LIBCURL_VERSION
#error "sw_guest_token needs libcurl 7.87 or newer: older versions cannot abandon a name look-up"
#endif

/* How an attempt ended, as far as HTTP goes. */
typedef enum AttemptEnd
{
	ATTEMPT_ANSWERED,			/* the whole response is there */
	ATTEMPT_MALFORMED,			/* what came is not HTTP, or too much of it */
	ATTEMPT_NOT_CONNECTED,
	ATTEMPT_BAD_CERTIFICATE,
	ATTEMPT_CONNECT_TIMED_OUT,
	ATTEMPT_TIMED_OUT,			/* its owner's deadline passed */
	ATTEMPT_BROKEN,				/* the connection broke before the end */
	ATTEMPT_BAD_CA_FILE,
	ATTEMPT_BAD_URL,			/* libcurl cannot use it, or the proxy's */
	ATTEMPT_NO_DESCRIPTOR,
	ATTEMPT_NO_LOOK_UP,			/* too many run, after they were given up */
	ATTEMPT_NO_MEMORY,
	ATTEMPT_ENGINE_FAILED,		/* libcurl cannot go on */
	ATTEMPT_ABANDONED,			/* its owner has changed its mind */

	/* the guard's decisions: requests are not sent, or given up */
	ATTEMPT_SILENT,				/* nobody got an answer */
	ATTEMPT_SUSPENDED,
	ATTEMPT_CROWDED,
	ATTEMPT_OVER_BUDGET
} AttemptEnd;

/* What to send, by POST; what it points to must stay valid meanwhile. */
typedef struct AttemptOptions
{
	Target	   *target;
	const char *url;
	const char *body;			/* JSON */
	int			connect_timeout_ms; /* name, TCP and TLS together */
	bool		wait_for_others;	/* their connections may be HTTP/2 */
	bool		is_fresh;		/* use no kept-alive connection */
	bool		is_probe;		/* sgt_probe_attempt() will ask */
} AttemptOptions;

/* Lives in malloc's memory, as libcurl's own does. */
typedef struct Attempt
{
	dlist_node	node;			/* in the list of those that run, or of others */
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
	 * Everything from here on is of one exchange, and is reset before the
	 * next: first its state, as libcurl's callbacks see it.
	 */
	curl_socket_t socket;		/* the last that was opened for it, unless it
								 * was given up before it was connected */
	curl_socket_t watched;		/* the last that libcurl has watched for it */
	int64		started_us;
	int64		connected_us;	/* when it connected; TLS may follow */
	int			n_sockets;		/* opened for it */
	bool		is_sent;		/* the request is on its way */
	int64		sent_us;		/* when that was */
	int64		gap_us;			/* when libcurl had a turn after long having
								 * none; 0: it always had */
	bool		is_starved;		/* it was about to connect then */
	size_t		length;			/* of what is sent */
	int			n_sent;			/* how often libcurl has sent it */
	int64		repeated_us;	/* when it last decided to do so again, by its
								 * clock, as of then */
	long		n_connects;		/* connections made for it until then */
	int			local_port;		/* of the connection that it went over */
	bool		is_new;			/* that was made for it */
	bool		is_shared;		/* that others went over, too: HTTP/2 */
	bool		is_hung_up;		/* that the other side has ended since */
	bool		is_refused;		/* HTTP/2: at least one, unprocessed */
	bool		has_strayed;	/* something else had come over its connection */
	int			n_replaced;		/* how often its connection was gone */
	bool		has_looked_up;	/* or tried to look the host's name up */
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
	CURLcode	code;			/* libcurl's, at first for its options */
	int64		ended_us;
	bool		ends_refused;	/* HTTP/2: the last one, unprocessed */
	bool		ends_reset;		/* HTTP/2: the server ended the stream alone */
	bool		is_cut_short;	/* long, and not sent to its end */
	const char *phase;			/* what it was doing, to complete "while ..." */
	const char *content_type;	/* NULL: none */
	int64		retry_after_s;	/* 0: none, or not readable */
	char		reason[CURL_ERROR_SIZE];	/* may be empty */
} Attempt;

/*
 * Since when the attempt has waited for the other side, as opposed to this one:
 * for authorities to be read, a processor, or somebody who gives it a turn.
 */
static inline int64
sgt_waiting_since_us(const Attempt *a)
{
	int64		since_us = a->is_sent ? a->sent_us :
	a->connected_us != 0 ? a->connected_us : a->started_us;

	return Max(since_us, a->gap_us);
}

/* These raise nothing. */
extern void sgt_free_attempt(Attempt *a);
extern bool sgt_prepare_attempt(Attempt *a, const AttemptOptions *options);
extern void sgt_note_idle_time(dlist_head *running, int64 now);
extern bool sgt_is_sending(const Attempt *a);
extern void sgt_note_attempt_end(Attempt *a, AttemptEnd end, CURLcode code);
extern AttemptEnd sgt_classify_attempt(const Attempt *a, CURLcode code);

/* This may raise, for lack of memory. */
extern void sgt_report_attempt(const Attempt *a, int tag, int number);

#endif							/* SGT_ATTEMPT_H */
