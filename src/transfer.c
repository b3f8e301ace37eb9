/*-------------------------------------------------------------------------
 * transfer.c
 *		One request on its way: its options, and what comes back.
 *
 * Knows what is said to libcurl and heard from it about a request; knows
 * nothing of sockets, time or signals, which are for engine.c, nor of when
 * something is sent, which is for http.c.
 *
 * Transfers are used again and again, with their handles: an option is set
 * for each attempt only if it may differ.  What libcurl would work out anew
 * for each request is given to it ready: the URL in its parts, and all headers
 * as lines.  That saves a twelfth of the time of a call over the loopback
 * interface.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <time.h>

#include "utils/memutils.h"

#include "engine.h"
#include "messages.h"
#include "transfer.h"

/*
 * A pair of tokens at their greatest length is 128 kB; whatever is larger
 * than this is not an answer.
 */
#define MAX_BODY_LENGTH		(1024 * 1024)

/* libcurl has a limit of its own, which it reports as a broken connection. */
#define MAX_HEADER_LENGTH	(256 * 1024)

/* Response buffers beyond this are not kept between batches. */
#define MAX_KEPT_BUFFER		(64 * 1024)

Transfer  **sgt_transfers = NULL;
int			sgt_n_transfers = 0;

static bool is_configured(const Transfer *t, const HttpConfig *config);
static bool configure(Transfer *t, const HttpConfig *config);
static void forget_configuration(Transfer *t);
static bool add_header(Transfer *t, const char *name, const char *value);
static bool fails_in_tls(CURLcode code);
static int	note_request(void *arg, char *remote_ip, char *local_ip,
						 int remote_port, int local_port);
static size_t write_body(char *data, size_t size, size_t n, void *arg);
static size_t read_header(char *line, size_t size, size_t n, void *arg);

/*
 * Finds a transfer that is free, or makes one.
 */
Transfer   *
sgt_take_transfer(void)
{
	MemoryContext oldcontext;
	Transfer   *t;

	for (int i = 0; i < sgt_n_transfers; i++)
	{
		if (sgt_transfers[i]->state == TRANSFER_FREE)
			return sgt_transfers[i];
	}

	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	if (sgt_transfers == NULL)
		sgt_transfers = palloc(sizeof(Transfer *));
	else
		sgt_transfers = repalloc(sgt_transfers,
								 (sgt_n_transfers + 1) * sizeof(Transfer *));
	MemoryContextSwitchTo(oldcontext);

	t = calloc(1, sizeof(Transfer));
	if (t == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	sgt_transfers[sgt_n_transfers++] = t;
	return t;
}

/*
 * Frees all transfers but the first "n_kept", which libcurl must not have any
 * more, and the large buffers of those.  Raises nothing.
 */
void
sgt_free_transfers(int n_kept)
{
	while (sgt_n_transfers > n_kept)
	{
		Transfer   *t = sgt_transfers[--sgt_n_transfers];

		if (t->easy)
			curl_easy_cleanup(t->easy);
		forget_configuration(t);
		free(t->body);
		free(t);
	}
	for (int i = 0; i < sgt_n_transfers; i++)
	{
		Transfer   *t = sgt_transfers[i];

		if (t->body_size > MAX_KEPT_BUFFER)
		{
			free(t->body);
			t->body = NULL;
			t->body_size = 0;
		}
	}
	if (sgt_n_transfers == 0 && sgt_transfers)
	{
		pfree(sgt_transfers);
		sgt_transfers = NULL;
	}
}

/*
 * Makes the handle ready for an attempt; false if memory is short.
 *
 * Waiting for others' connections to turn out to be HTTP/2 saves handshakes,
 * but makes connection attempts serial.
 */
bool
sgt_transfer_prepare(Transfer *t, const HttpConfig *config,
					 bool wait_for_others)
{
	t->socket = CURL_SOCKET_BAD;
	t->started_us = sgt_now_us();
	t->connected_us = 0;
	t->is_sent = false;
	t->n_sent = 0;
	t->n_connects = 0;
	t->local_port = 0;
	t->is_new = false;
	t->is_shared = false;
	t->is_refused = false;
	t->looks_up = false;
	t->code = CURLE_OK;
	t->is_unreported = false;
	t->no_descriptor = false;
	t->no_memory = false;
	t->too_large = false;
	t->status = 0;
	t->header_length = 0;
	t->body_length = 0;
	t->reason[0] = '\0';

	return (is_configured(t, config) || configure(t, config)) &&
		curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE,
						 (long) strlen(t->request.body)) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS,
						 t->request.body) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS,
						 (long) config->connect_timeout_ms) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT,
						 (long) t->wants_fresh) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_PIPEWAIT,
						 (long) wait_for_others) == CURLE_OK;
}

static bool
fails_in_tls(CURLcode code)
{
	return code == CURLE_SSL_CONNECT_ERROR ||
		code == CURLE_PEER_FAILED_VERIFICATION ||
		code == CURLE_SSL_CACERT_BADFILE ||
		code == CURLE_SSL_ISSUER_ERROR;
}

/*
 * Tells how far the attempt came.
 */
void
sgt_transfer_probe(Transfer *t, HttpProbe *probe)
{
	struct curl_certinfo *certificates = NULL;
	struct curl_header *date;
	curl_off_t	resolved_us = 0;
	curl_off_t	connected_us = 0;
	curl_off_t	ready_us = 0;
	curl_off_t	answered_us = 0;

	curl_easy_getinfo(t->easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved_us);
	curl_easy_getinfo(t->easy, CURLINFO_CONNECT_TIME_T, &connected_us);
	/* from 8.22 on libcurl fills it in at the end, whether it was reached */
	if (t->is_sent)
		curl_easy_getinfo(t->easy, CURLINFO_PRETRANSFER_TIME_T, &ready_us);
	curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &answered_us);

	/* libcurl tells that it was connected only when all that follows is done */
	if (connected_us == 0 && t->connected_us != 0)
		connected_us = Max(t->connected_us - t->started_us, resolved_us + 1);
	else if (connected_us == 0 && fails_in_tls(t->code))
		connected_us = resolved_us + 1;
	probe->resolve_us = resolved_us;
	probe->connect_us = Max(connected_us - resolved_us, 0);
	if (connected_us > 0)
		probe->tls_us = Max(ready_us - connected_us, 0);
	if (t->status != 0)
		probe->answer_us = Max(answered_us - ready_us, 1);

	probe->local_time = (int64) time(NULL);
	probe->server_time = -1;
	if (curl_easy_header(t->easy, "Date", 0, CURLH_HEADER, -1,
						 &date) == CURLHE_OK)
		probe->server_time = (int64) curl_getdate(date->value, NULL);

	/* the first certificate is the server's own */
	probe->expires = -1;
	curl_easy_getinfo(t->easy, CURLINFO_CERTINFO, &certificates);
	if (certificates == NULL || certificates->num_of_certs < 1)
		return;
	for (struct curl_slist *item = certificates->certinfo[0]; item;
		 item = item->next)
	{
		if (strncmp(item->data, "Issuer:", 7) == 0)
			strlcpy(probe->issuer, item->data + 7, sizeof(probe->issuer));
		else if (strncmp(item->data, "Expire date:", 12) == 0)
			probe->expires = (int64) curl_getdate(item->data + 12, NULL);
	}
}

/*
 * A probe's handle is of no use to others, nor theirs to it.
 */
static bool
is_configured(const Transfer *t, const HttpConfig *config)
{
	return t->generation == config->generation && !t->request.probe &&
		strcmp(t->url, t->request.url) == 0;
}

/*
 * Makes the transfer's handle and gives it the options that all requests
 * share; false if memory is short.
 */
static bool
configure(Transfer *t, const HttpConfig *config)
{
	CURLcode	code = CURLE_OK;
	char		user_agent[64];

#define SET(option, value) \
	do { \
		if (code == CURLE_OK) \
			code = curl_easy_setopt(t->easy, (option), (value)); \
	} while (0)

	if (t->easy)
		curl_easy_reset(t->easy);
	else
		t->easy = curl_easy_init();
	forget_configuration(t);
	if (t->easy == NULL || !sgt_engine_adopt(t))
		return false;

	/* what comes back */
	SET(CURLOPT_PRIVATE, t);
	SET(CURLOPT_PREREQFUNCTION, note_request);
	SET(CURLOPT_PREREQDATA, t);
	SET(CURLOPT_ERRORBUFFER, t->reason);
	SET(CURLOPT_WRITEFUNCTION, write_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, read_header);
	SET(CURLOPT_HEADERDATA, t);

	/* what is sent; packagers' own version is nobody's business */
	snprintf(user_agent, sizeof(user_agent),
			 "sw_guest_token/" SGT_VERSION " PostgreSQL/%.*s",
			 (int) strcspn(PG_VERSION, " "), PG_VERSION);
	if ((config->authorization &&
		 !add_header(t, "Authorization", config->authorization)) ||
		!add_header(t, "User-Agent", user_agent) ||
		!add_header(t, "Content-Type", "application/json") ||
		!add_header(t, "Accept", "application/json") ||
		!add_header(t, "Expect", ""))
		return false;
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_HTTPHEADER, t->headers);

	/* a proxy that is asked for a tunnel gets none of them */
	SET(CURLOPT_HEADEROPT, (long) CURLHEADER_SEPARATE);

	/* where to, and whom to trust: some are defaults, but matter too much */
	t->url = strdup(t->request.url);
	t->parsed_url = curl_url();
	if (t->url == NULL || t->parsed_url == NULL ||
		curl_url_set(t->parsed_url, CURLUPART_URL, t->url, 0) != CURLUE_OK)
		return false;
	SET(CURLOPT_CURLU, t->parsed_url);
	SET(CURLOPT_PROTOCOLS_STR, config->is_https ? "https" : "http");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_PROXY, config->proxy ? config->proxy : "");
	SET(CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (!config->use_no_proxy)
		SET(CURLOPT_NOPROXY, "");
	if (config->ca_file)
	{
		/* in place of libcurl's own, which may also be a directory */
		SET(CURLOPT_CAINFO, config->ca_file);
		SET(CURLOPT_CAPATH, NULL);
		SET(CURLOPT_PROXY_CAINFO, config->ca_file);
		SET(CURLOPT_PROXY_CAPATH, NULL);
	}
	if (t->request.probe)
	{
		/* a session that is resumed shows no certificate */
		SET(CURLOPT_CERTINFO, 1L);
		SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
	}
#undef SET

	if (code != CURLE_OK)
		return false;
	t->generation = t->request.probe ? 0 : config->generation;
	return true;
}

static void
forget_configuration(Transfer *t)
{
	t->generation = 0;
	curl_slist_free_all(t->headers);
	t->headers = NULL;
	curl_url_cleanup(t->parsed_url);
	t->parsed_url = NULL;
	free(t->url);
	t->url = NULL;
}

/*
 * Adds a header line, or with an empty value takes one of libcurl's away;
 * false if memory is short.
 */
static bool
add_header(Transfer *t, const char *name, const char *value)
{
	size_t		size = strlen(name) + strlen(value) + 3;
	char	   *line = malloc(size);
	struct curl_slist *headers = NULL;

	if (line)
	{
		snprintf(line, size, value[0] ? "%s: %s" : "%s:", name, value);
		headers = curl_slist_append(t->headers, line);
		free(line);
	}
	if (headers == NULL)
		return false;
	t->headers = headers;
	return true;
}

/*
 * libcurl's callbacks
 */

/*
 * Called when the connection stands, proxy and TLS included, so that the
 * request is on its way.
 *
 * libcurl calls this again when it sends the request again, up to five times,
 * because nothing came: over a connection that was there before, which the
 * server may have closed meanwhile, or because the server refused the stream.
 * The first may happen once, and with a new connection.  A server that takes
 * requests and closes would else get one over each that is kept alive.
 */
static int
note_request(void *arg, char *remote_ip, char *local_ip, int remote_port,
			 int local_port)
{
	Transfer   *t = arg;
	long		n_connects = 0;

	(void) remote_ip;
	(void) local_ip;
	(void) remote_port;

	curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &n_connects);
	t->is_sent = true;
	if (t->n_sent > 0)
	{
		/* over a new connection libcurl repeats only what was refused */
		t->is_refused |= t->is_shared || t->is_new;
		if (!t->is_refused && n_connects == t->n_connects)
			return CURL_PREREQFUNC_ABORT;
	}

	t->n_sent++;
	t->is_new = n_connects > t->n_connects;
	t->n_connects = n_connects;
	t->local_port = local_port;
	t->is_shared = false;
	for (int i = 0; i < sgt_n_transfers; i++)
	{
		Transfer   *other = sgt_transfers[i];

		/* of HTTP/1.1, one that has its answer may not have been collected */
		if (other != t && other->state == TRANSFER_RUNNING &&
			other->is_sent && other->header_length == 0 &&
			other->local_port == local_port)
			t->is_shared = other->is_shared = true;
	}
	return CURL_PREREQFUNC_OK;
}

static size_t
write_body(char *data, size_t size, size_t n, void *arg)
{
	Transfer   *t = arg;
	size_t		length = size * n;

	if (length > MAX_BODY_LENGTH - t->body_length)
	{
		t->too_large = true;
		return CURL_WRITEFUNC_ERROR;
	}
	if (t->body_length + length > t->body_size)
	{
		size_t		new_size = Max(t->body_size, 4096);
		char	   *new_body;

		while (new_size < t->body_length + length)
			new_size *= 2;
		new_body = realloc(t->body, new_size);
		if (new_body == NULL)
		{
			t->no_memory = true;
			return CURL_WRITEFUNC_ERROR;
		}
		t->body = new_body;
		t->body_size = new_size;
	}
	memcpy(t->body + t->body_length, data, length);
	t->body_length += length;
	return length;
}

/*
 * Gets one line at a time.  The empty one after the headers of a final
 * response makes its status count.
 */
static size_t
read_header(char *line, size_t size, size_t n, void *arg)
{
	Transfer   *t = arg;
	size_t		length = size * n;
	long		status = 0;

	t->header_length += length;
	if (t->header_length > MAX_HEADER_LENGTH)
	{
		t->too_large = true;
		return 0;
	}
	if (length > 0 && (line[0] == '\r' || line[0] == '\n'))
	{
		curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status >= 200 || status == 101)
			t->status = (int) status;

		/* what follows is no HTTP, and nobody has asked for it */
		if (status == 101)
			return 0;
	}
	return length;
}
