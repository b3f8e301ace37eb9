/*-------------------------------------------------------------------------
 * http.h
 *		A batch of HTTP requests, run to its end or until interrupted.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_HTTP_H
#define SGT_HTTP_H

#include "postgres.h"

/*
 * What all requests of a batch share.  Whoever changes anything in the first
 * group gives the configuration a new generation number.
 */
typedef struct HttpConfig
{
	uint64		generation;
	uint64		trust;			/* another number: ca_file has changed */
	bool		is_https;		/* the only scheme that is spoken */
	const char *authorization;	/* the header's value; NULL: none is sent */
	const char *ca_file;		/* NULL: as libcurl finds it */
	const char *proxy;			/* NULL: none, whatever the environment says */
	bool		use_no_proxy;	/* obey the environment's no_proxy */

	int			connect_timeout_ms; /* one connection attempt */
	int			timeout_ms;		/* one request with all that belongs to it */
	int			max_retries;	/* attempts after the first */
	int			max_concurrency;	/* requests in flight */
} HttpConfig;

/* How far a request came, and how long each step took; 0: not so far. */
typedef struct HttpProbe
{
	int64		resolve_us;
	int64		connect_us;
	int64		tls_us;			/* with that to a proxy, if there is one */
	int64		answer_us;
	int64		local_time;		/* when the headers were there, Unix time */
	int64		server_time;	/* what they said then; -1: nothing */
	char		issuer[256];	/* of the server's certificate */
	int64		expires;		/* Unix time; -1: not known */
} HttpProbe;

/*
 * A POST of JSON; body, tag and probe are the caller's.  With a probe, which
 * is filled in, the request goes over a connection of its own, once.
 */
typedef struct HttpRequest
{
	const char *url;
	const char *body;
	int			tag;
	HttpProbe  *probe;			/* NULL: none */
} HttpRequest;

typedef enum HttpResult
{
	HTTP_ANSWERED,				/* a status came, with a 201 the whole body */
	HTTP_MALFORMED,				/* what came is not HTTP, or too much of it */
	HTTP_NOT_CONNECTED,
	HTTP_BAD_CERTIFICATE,
	HTTP_CONNECT_TIMED_OUT,
	HTTP_TIMED_OUT,
	HTTP_BROKEN,				/* the connection broke before the end */
	HTTP_BAD_CA_FILE,
	HTTP_BAD_URL,				/* libcurl cannot use it, or the proxy's */
	HTTP_NO_DESCRIPTOR,
	HTTP_NO_MEMORY,
	HTTP_NOT_SENT				/* another outcome has stopped the batch */
} HttpResult;

/* How a request ended.  What it points to lives until HttpDone returns. */
typedef struct HttpOutcome
{
	HttpResult	result;
	int			status;			/* the last that came, 0 if none did */
	int			attempts;
	const char *phase;			/* what it was doing when time ran out */
	const char *content_type;	/* NULL: none */
	const char *body;
	size_t		body_length;
	const char *reason;			/* libcurl's words, may be empty */
	bool		any_sent;		/* any request of the batch, by then */
} HttpOutcome;

/* Gives the next request, or returns false if there is none. */
typedef bool (*HttpNext) (void *arg, HttpRequest *request);

/* Takes an outcome; returns false if nothing more is to be sent. */
typedef bool (*HttpDone) (void *arg, const HttpRequest *request,
						  const HttpOutcome *outcome);

extern void sgt_http_run(const HttpConfig *config, HttpNext next,
						 HttpDone done, void *arg);

#endif							/* SGT_HTTP_H */
