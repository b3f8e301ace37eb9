/*-------------------------------------------------------------------------
 * transfer.h
 *		One request on its way: its options, and what comes back.
 *
 * For engine.c and http.c alone.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_TRANSFER_H
#define SGT_TRANSFER_H

#include "postgres.h"

#include <curl/curl.h>

#include "http.h"

/* The one status that brings what was asked for. */
#define SUCCESS_STATUS		201

typedef enum TransferState
{
	TRANSFER_FREE,
	TRANSFER_PAUSED,			/* until resume_us, or for a descriptor */
	TRANSFER_RUNNING,			/* libcurl has it */
	TRANSFER_FINISHED			/* its outcome waits to be handed out */
} TransferState;

/* One request on its way.  Lives in malloc's memory, as libcurl's own does. */
typedef struct Transfer
{
	/* the request as a whole: http.c's */
	TransferState state;
	HttpRequest request;
	HttpOutcome outcome;		/* of the last attempt */
	int			attempts;
	int64		deadline_us;	/* 0: not sent yet */
	int64		resume_us;		/* the end of a pause */
	bool		wants_descriptor;	/* the pause ends when others finish */
	bool		wants_fresh;	/* use no kept-alive connection */
	int			n_refusals;		/* after which it was sent again */

	/* the handle, and what it was configured for */
	CURL	   *easy;
	uint64		generation;		/* 0: nothing yet */
	char	   *url;
	CURLU	   *parsed_url;
	struct curl_slist *headers;

	/* the present attempt, as libcurl's callbacks see it */
	curl_socket_t socket;		/* the last that was opened for it */
	int64		started_us;
	int64		connected_us;	/* then that one was; TLS may be to come */
	bool		is_sent;		/* it stands, proxy and TLS included */
	int			n_sent;			/* how often libcurl has sent the request */
	long		n_connects;		/* connections made for it until then */
	int			local_port;		/* of the connection that it went over */
	bool		is_new;			/* that was made for it */
	bool		is_shared;		/* others go over it, too */
	bool		is_refused;		/* HTTP/2: unprocessed, as far as can be told */
	bool		looks_up;		/* a name look-up may yet start a thread */
	CURLcode	code;			/* how it ended, CURLE_OK until then */
	bool		is_unreported;	/* it has ended, but not been logged */
	const char *connection;		/* what it went over, for the log */
	int64		ended_us;
	bool		no_descriptor;
	bool		no_memory;
	bool		too_large;
	int			status;			/* set when all headers are there */
	size_t		header_length;
	size_t		body_length;
	size_t		body_size;		/* what "body" has room for */
	char	   *body;
	char		reason[CURL_ERROR_SIZE];
} Transfer;

/* All transfers that there are; sgt_take_transfer() makes more. */
extern Transfer **sgt_transfers;
extern int	sgt_n_transfers;

/* May raise. */
extern Transfer *sgt_take_transfer(void);

/* These raise nothing. */
extern bool sgt_transfer_prepare(Transfer *t, const HttpConfig *config,
								 bool wait_for_others);
extern void sgt_transfer_probe(Transfer *t, HttpProbe *probe);
extern void sgt_free_transfers(int n_kept);

#endif							/* SGT_TRANSFER_H */
