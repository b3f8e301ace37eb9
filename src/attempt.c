/*-------------------------------------------------------------------------
 * attempt.c
 *		One exchange of a request for a response, over one easy handle.
 *
 * Options in, facts out.  It knows what libcurl is told about a request, and
 * what it reports.  It does not wait, and knows nothing of signals (engine.c)
 * or of whether another attempt is worthwhile (retry.c).
 *
 * Attempts and their handles are reused, and an option is set again only if
 * it may differ.  libcurl is given the URL in parts and all headers as lines:
 * not having to work them out for each request saves it a fifth of its
 * instructions.
 *
 * No function here raises, because libcurl may be on the stack.  A callback
 * that fails leaves a note in its attempt and returns libcurl's failure value.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>

#include "attempt.h"
#include "clock.h"
#include "lookup.h"
#include "messages.h"
#include "socketset.h"

/*
 * Two tokens of the greatest length are 128 kB; anything larger than this is
 * not an answer.
 */
#define MAX_BODY_LENGTH		(1024 * 1024)

/* libcurl has a limit of its own, which it reports as a broken connection. */
#define MAX_HEADER_LENGTH	(256 * 1024)

/*
 * How often libcurl sends a refused stream again: if it stops sooner, the
 * last stream was not refused.
 */
#define LIBCURL_REPEATS		5

/*
 * Through a proxy that speaks TLS itself, libcurl 7.88 leaves HTTP/2 frames
 * unread until more arrive.  8.5 does not; those in between were not tried.
 */
#define MIN_NESTED_HTTP2	0x080500

/* Sending a longer request may take a while. */
#define MIN_LONG_REQUEST	(64 * 1024)

/* What older headers do not name. */
#if LIBCURL_VERSION_NUM < 0x080600
#define CURLE_TOO_LARGE		((CURLcode) 100)
#endif

/* A response buffer beyond this is not kept for the next attempt. */
#define MAX_KEPT_BUFFER		(64 * 1024)

static bool is_older(unsigned int version);
static bool is_clean_handle(const Attempt *a);
static void reset_facts(Attempt *a);
static bool is_configured(const Attempt *a, const AttemptOptions *options);
static void configure(Attempt *a, const AttemptOptions *options);
static void set_callbacks(Attempt *a);
static void set_headers(Attempt *a, const Target *target);
static void set_route(Attempt *a, const Target *target, const char *url);
static void set_trust(Attempt *a, const Target *target);
static void trust_no_directory(Attempt *a);
static void forget_configuration(Attempt *a);
static bool add_header(Attempt *a, const char *name, const char *value);
static bool leaves_look_up(const Attempt *a, CURLcode code);
static bool is_resolved(const Attempt *a);
static bool has_begun(const Attempt *a);
static bool is_header_too_long(const Attempt *a, CURLcode code);
static bool ends_refused(const Attempt *a, CURLcode code);
static const char *describe_phase(const Attempt *a);
static void describe_reason(Attempt *a, AttemptEnd end, CURLcode code);
static int	start_look_up(void *resolver, void *reserved, void *arg);
static size_t write_body(char *data, size_t size, size_t n, void *arg);
static bool has_unasked_encoding(const char *line, size_t length);
static size_t read_header(char *line, size_t size, size_t n, void *arg);
static void note_status(Attempt *a);

/* Sets an option, unless "code" says that an earlier one has failed. */
#define SET(option, value) \
	do { \
		if (a->code == CURLE_OK) \
			a->code = curl_easy_setopt(a->easy, (option), (value)); \
	} while (0)

/* Frees an attempt that libcurl no longer has. */
void
sgt_free_attempt(Attempt *a)
{
	if (a->easy)
		curl_easy_cleanup(a->easy);
	forget_configuration(a);
	free(a->body);
	free(a);
}

/*
 * Whether libcurl is older than a version, as it runs: it may be newer than
 * the headers that we were built with.
 */
static bool
is_older(unsigned int version)
{
	return curl_version_info(CURLVERSION_NOW)->version_num < version;
}

/*
 * Makes the handle ready; false if memory is short.
 *
 * Waiting to see whether another attempt's connection is HTTP/2 saves
 * handshakes, but makes connection attempts serial.
 */
bool
sgt_prepare_attempt(Attempt *a, const AttemptOptions *options)
{
	bool		is_clean = is_clean_handle(a);

	reset_facts(a);
	if (!is_clean || !is_configured(a, options))
		configure(a, options);
	a->length = strlen(options->body);
	SET(CURLOPT_POSTFIELDSIZE, (long) a->length);
	SET(CURLOPT_POSTFIELDS, options->body);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) options->connect_timeout_ms);
	SET(CURLOPT_FRESH_CONNECT, (long) options->is_fresh);
	SET(CURLOPT_PIPEWAIT, (long) options->wait_for_others);
	return a->code == CURLE_OK;
}

/*
 * Up to 8.16, a handle with which libcurl has repeated a request carries its
 * repeat count into the next request, which libcurl would then repeat less
 * often, until the handle is reset.  note_status() may have set an option.
 */
static bool
is_clean_handle(const Attempt *a)
{
	return a->n_sent == 1 && a->end == ATTEMPT_ANSWERED &&
		!sgt_is_outage(a->status);
}

static void
reset_facts(Attempt *a)
{
	memset((char *) a + offsetof(Attempt, socket), 0,
		   sizeof(Attempt) - offsetof(Attempt, socket));
	a->socket = CURL_SOCKET_BAD;
	a->watched = CURL_SOCKET_BAD;
	a->started_us = sgt_now_us();
	if (a->body_size > MAX_KEPT_BUFFER)
	{
		free(a->body);
		a->body = NULL;
		a->body_size = 0;
	}
}

/*
 * Configuration
 */

/*
 * An exam cannot reuse another attempt's handle, nor can other attempts reuse
 * an exam's.
 */
static bool
is_configured(const Attempt *a, const AttemptOptions *options)
{
	return a->target == options->target && !options->is_exam &&
		strcmp(a->url, options->url) == 0;
}

/*
 * Makes the handle and gives it the options that all requests to a target
 * share.
 */
static void
configure(Attempt *a, const AttemptOptions *options)
{
	if (a->easy)
		curl_easy_reset(a->easy);
	else
		a->easy = curl_easy_init();
	a->is_adopted = false;
	forget_configuration(a);
	if (a->easy == NULL)
		a->code = CURLE_OUT_OF_MEMORY;

	set_callbacks(a);
	set_headers(a, options->target);
	set_route(a, options->target, options->url);
	set_trust(a, options->target);
	if (options->is_exam)
	{
		/* not with every TLS library; and a resumed session shows none */
		if (a->easy)
			(void) curl_easy_setopt(a->easy, CURLOPT_CERTINFO, 1L);
		SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
	}
	else if (a->code == CURLE_OK)
		a->target = sgt_pin_target(options->target);
}

static void
set_callbacks(Attempt *a)
{
	SET(CURLOPT_PRIVATE, a);
	SET(CURLOPT_ERRORBUFFER, a->reason);
	SET(CURLOPT_WRITEFUNCTION, write_body);
	SET(CURLOPT_WRITEDATA, a);
	SET(CURLOPT_HEADERFUNCTION, read_header);
	SET(CURLOPT_HEADERDATA, a);
	SET(CURLOPT_RESOLVER_START_FUNCTION, start_look_up);
	SET(CURLOPT_RESOLVER_START_DATA, a);
}

static void
set_headers(Attempt *a, const Target *target)
{
	char		user_agent[64];

	/* don't reveal a packager's version suffix */
	snprintf(user_agent, sizeof(user_agent),
			 "sw_guest_token/" SGT_VERSION " PostgreSQL/%.*s",
			 (int) strcspn(PG_VERSION, " "), PG_VERSION);
	if ((target->authorization &&
		 !add_header(a, "Authorization", target->authorization)) ||
		!add_header(a, "User-Agent", user_agent) ||
		!add_header(a, "Content-Type", "application/json") ||
		!add_header(a, "Accept", "application/json") ||
		!add_header(a, "Expect", ""))
		a->code = CURLE_OUT_OF_MEMORY;
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_HTTPHEADER, a->headers);

	/* a proxy that is asked for a tunnel gets none of them */
	SET(CURLOPT_HEADEROPT, (long) CURLHEADER_SEPARATE);
}

/*
 * Where the request goes.  Some of these options are libcurl's defaults, but
 * matter too much to rely on that.
 */
static void
set_route(Attempt *a, const Target *target, const char *url)
{
	a->url = strdup(url);
	a->parsed_url = curl_url();
	if (a->url == NULL || a->parsed_url == NULL ||
		curl_url_set(a->parsed_url, CURLUPART_URL, url, 0) != CURLUE_OK)
		a->code = CURLE_OUT_OF_MEMORY;
	SET(CURLOPT_CURLU, a->parsed_url);
	SET(CURLOPT_PROTOCOLS_STR, target->is_https ? "https" : "http");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_PROXY, target->proxy ? target->proxy : "");
	if (target->proxy && pg_strncasecmp(target->proxy, "https:", 6) == 0 &&
		is_older(MIN_NESTED_HTTP2))
		SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	/* without GSSAPI, which would wait for a name server or a KDC */
	SET(CURLOPT_SOCKS5_AUTH, CURLAUTH_BASIC);
	if (!target->obeys_no_proxy)
		SET(CURLOPT_NOPROXY, "");
}

static void
set_trust(Attempt *a, const Target *target)
{
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
	if (target->ca_file)
	{
		SET(CURLOPT_CAINFO, target->ca_file);
		SET(CURLOPT_PROXY_CAINFO, target->ca_file);
		trust_no_directory(a);
	}
}

/*
 * Makes "ca_file" replace a directory of authorities that libcurl was built
 * with.  From 8.17 on, libcurl uses its own in place of NULL, so we give it a
 * path that holds no authorities.  Without such a directory there is nothing
 * to do, and some TLS libraries do not know the options.  Either way libcurl
 * reads the file for each connection.
 */
static void
trust_no_directory(Attempt *a)
{
	const char *nothing = is_older(0x081100) ? NULL : "/dev/null";

	if (curl_version_info(CURLVERSION_NOW)->capath == NULL)
		return;
	SET(CURLOPT_CAPATH, nothing);
	SET(CURLOPT_PROXY_CAPATH, nothing);
}

static void
forget_configuration(Attempt *a)
{
	sgt_unpin_target(a->target);
	a->target = NULL;
	curl_slist_free_all(a->headers);
	a->headers = NULL;
	curl_url_cleanup(a->parsed_url);
	a->parsed_url = NULL;
	free(a->url);
	a->url = NULL;
}

/*
 * Adds a header line, or with an empty value removes one of libcurl's; false
 * if memory is short.
 */
static bool
add_header(Attempt *a, const char *name, const char *value)
{
	size_t		size = strlen(name) + strlen(value) + 3;
	char	   *line = malloc(size);
	struct curl_slist *headers = NULL;

	if (line)
	{
		snprintf(line, size, value[0] ? "%s: %s" : "%s:", name, value);
		headers = curl_slist_append(a->headers, line);
		free(line);
	}
	if (headers == NULL)
		return false;
	a->headers = headers;
	return true;
}

/*
 * Facts
 */

/* Notes that libcurl is getting its first turn since a time long ago. */
void
sgt_note_gap(Attempt *a, int64 since, int64 now)
{
	a->gap_us = now;
	a->before_gap_us = since;
	a->is_starved |= a->n_sockets > 0 && !a->is_sent;
}

/* Whether the request is long and has not entirely reached the other side. */
bool
sgt_is_sending(const Attempt *a)
{
	curl_off_t	n = 0;

	if (!a->is_sent || a->length < MIN_LONG_REQUEST)
		return false;
	curl_easy_getinfo(a->easy, CURLINFO_SIZE_UPLOAD_T, &n);
	return n < (curl_off_t) a->length || sgt_has_unsent(a->watched);
}

/* How an attempt ended, once libcurl is done with it. */
AttemptEnd
sgt_classify_attempt(const Attempt *a, CURLcode code)
{
	if (a->is_mixed_up)
		return ATTEMPT_BROKEN;
	if (a->no_memory)
		return ATTEMPT_NO_MEMORY;
	if (a->no_look_up)
		return ATTEMPT_NO_LOOK_UP;
	if (code == CURLE_OK)
		return a->status != 0 ? ATTEMPT_ANSWERED : ATTEMPT_BROKEN;
	if (a->too_large || a->is_encoded || is_header_too_long(a, code))
		return ATTEMPT_MALFORMED;

	switch (code)
	{
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
			return ATTEMPT_BAD_CERTIFICATE;
		case CURLE_SSL_CACERT_BADFILE:
			return ATTEMPT_BAD_CA_FILE;
		case CURLE_URL_MALFORMAT:
			return ATTEMPT_BAD_URL;
		case CURLE_OPERATION_TIMEDOUT:
			return ATTEMPT_CONNECT_TIMED_OUT;
		case CURLE_OUT_OF_MEMORY:
			return ATTEMPT_NO_MEMORY;
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
			return ATTEMPT_MALFORMED;
		case CURLE_BAD_FUNCTION_ARGUMENT:
			/* up to 8.14, a trailer without a colon */
			if (has_begun(a))
				return ATTEMPT_MALFORMED;
			break;
		case CURLE_RECV_ERROR:
			/* only the text tells a bad chunk from a broken connection */
			if (strstr(a->reason, "chunk"))
				return ATTEMPT_MALFORMED;
			break;
		default:
			break;
	}
	if (a->no_descriptor)
		return ATTEMPT_NO_DESCRIPTOR;
	return a->n_sent > 0 ? ATTEMPT_BROKEN : ATTEMPT_NOT_CONNECTED;
}

/*
 * Fills in the facts of an attempt that has ended, or is being stopped; in
 * the latter case "code" is CURLE_OK.
 */
void
sgt_note_attempt_end(Attempt *a, AttemptEnd end, CURLcode code)
{
	curl_off_t	retry_after_s = 0;
	char	   *content_type = NULL;

	a->end = end;
	a->code = code;
	a->ended_us = sgt_now_us();
	if (a->is_mixed_up)
		a->status = 0;
	/* from 8.1 on libcurl refuses encodings without showing us the line */
	if (code == CURLE_BAD_CONTENT_ENCODING)
		note_status(a);
	a->phase = describe_phase(a);
	a->ends_refused = ends_refused(a, code);
	a->ends_reset = code == CURLE_HTTP2_STREAM;
	a->is_cut_short = sgt_is_sending(a);
	if (leaves_look_up(a, code))
		sgt_note_left_look_up();
	describe_reason(a, end, code);
	curl_easy_getinfo(a->easy, CURLINFO_CONTENT_TYPE, &content_type);
	a->content_type = content_type;

	/* negative for a date in the past */
	curl_easy_getinfo(a->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
	a->retry_after_s = Max(retry_after_s, 0);
}

/*
 * Whether the attempt leaves behind a thread that may still be looking up a
 * name.  libcurl does not say when it has found the host's for a proxy.
 */
static bool
leaves_look_up(const Attempt *a, CURLcode code)
{
	return ((a->has_looked_up && !is_resolved(a)) ||
			(a->looks_up_for_proxy && !a->is_sent)) &&
		(code == CURLE_OK || code == CURLE_OPERATION_TIMEDOUT);
}

static bool
is_resolved(const Attempt *a)
{
	curl_off_t	resolved_us = 0;

	curl_easy_getinfo(a->easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved_us);
	return resolved_us > 0;
}

/*
 * Whether the response has begun, even if its end is all that came.  From
 * 8.22 on libcurl fills in the time when the attempt ends, whether or not it
 * got that far.
 */
static bool
has_begun(const Attempt *a)
{
	curl_off_t	begun_us = 0;

	if (a->is_sent)
		curl_easy_getinfo(a->easy, CURLINFO_STARTTRANSFER_TIME_T, &begun_us);
	return a->header_length > 0 || begun_us > 0;
}

/*
 * Up to 8.5 libcurl reports this as a lack of memory.
 */
static bool
is_header_too_long(const Attempt *a, CURLcode code)
{
	return code != CURLE_OK && has_begun(a) &&
		code == (is_older(0x080600) ? CURLE_OUT_OF_MEMORY : CURLE_TOO_LARGE);
}

/*
 * Whether the server left the stream unprocessed the last time, too.  If we
 * did not let libcurl send the request again (connection.c), that is not
 * certain, but likely of a server that has refused it before.  Up to 8.0
 * libcurl gives up without a message if that was the last stream of a session
 * that the server has ended.
 */
static bool
ends_refused(const Attempt *a, CURLcode code)
{
	if (code == CURLE_HTTP2 && a->reason[0] == '\0' && is_older(0x080100))
		return true;
	return a->is_refused && (code == CURLE_ABORTED_BY_CALLBACK ||
							 (code != CURLE_OK && a->n_sent > LIBCURL_REPEATS));
}

static const char *
describe_phase(const Attempt *a)
{
	if (a->header_length > 0)
		return gettext_noop("receiving the response");
	if (a->is_sent)
		return gettext_noop("waiting for the response");
	if (a->connected_us != 0)
		return gettext_noop("negotiating TLS");
	if (is_resolved(a))
		return gettext_noop("connecting");
	return gettext_noop("resolving the host name");
}

/*
 * Replaces libcurl's words where they would mislead.
 */
static void
describe_reason(Attempt *a, AttemptEnd end, CURLcode code)
{
	const char *reason = NULL;

	if (a->is_mixed_up)
		reason = gettext_noop("its response may be another request's");
	else if (a->too_large)
		reason = gettext_noop("the response is too large");
	else if (a->is_encoded)
		reason = gettext_noop("it has a transfer encoding that was not requested");
	else if (is_header_too_long(a, code))
		reason = gettext_noop("a header is too long");
	else if (end == ATTEMPT_BROKEN && code == CURLE_OK)
		reason = gettext_noop("the headers ended early");
	else if (a->reason[0] == '\0' && code != CURLE_OK)
		reason = curl_easy_strerror(code);
	if (reason)
		strlcpy(a->reason, reason, sizeof(a->reason));
}

/*
 * libcurl's callbacks
 */

/*
 * Called before libcurl looks up a name that is not, or no longer, in its
 * cache.
 */
static int
start_look_up(void *resolver, void *reserved, void *arg)
{
	Attempt    *a = arg;

	(void) resolver;
	(void) reserved;
	a->has_looked_up = true;
	a->looks_up_for_proxy = a->n_sockets > 0;
	a->no_look_up = !sgt_may_look_up();
	return a->no_look_up;		/* other than 0: there is no look-up */
}

static size_t
write_body(char *data, size_t size, size_t n, void *arg)
{
	Attempt    *a = arg;
	size_t		length = size * n;

	a->is_mixed_up |= a->is_followed && sgt_is_http1(a);
	if (a->is_mixed_up)
		return CURL_WRITEFUNC_ERROR;
	if (length > MAX_BODY_LENGTH - a->body_length)
	{
		a->too_large = true;
		return CURL_WRITEFUNC_ERROR;
	}
	if (a->body_length + length > a->body_size)
	{
		size_t		new_size = Max(a->body_size, 4096);
		char	   *new_body;

		while (new_size < a->body_length + length)
			new_size *= 2;
		new_body = realloc(a->body, new_size);
		if (new_body == NULL)
		{
			a->no_memory = true;
			return CURL_WRITEFUNC_ERROR;
		}
		a->body = new_body;
		a->body_size = new_size;
	}
	memcpy(a->body + a->body_length, data, length);
	a->body_length += length;
	return length;
}

/*
 * Gets one line at a time.  The empty line after the headers of a final
 * response makes its status count.
 */
static size_t
read_header(char *line, size_t size, size_t n, void *arg)
{
	Attempt    *a = arg;
	size_t		length = size * n;
	bool		is_last = length > 0 && (line[0] == '\r' || line[0] == '\n');
	bool		is_encoded = a->status == 0 &&
	has_unasked_encoding(line, length);

	a->header_length += length;
	if (a->header_length > MAX_HEADER_LENGTH)
	{
		a->too_large = true;
		return 0;
	}
	a->is_encoded |= is_encoded;
	if (is_last || is_encoded)
		note_status(a);

	/* what follows a 101 is not HTTP, and nobody asked for it */
	return is_encoded || a->is_mixed_up || a->status == 101 ? 0 : length;
}

/*
 * Takes the status of a final response, unless that may be another's.  If it
 * says that the API does not work, libcurl closes the connection, because
 * another one may lead to a host where it does.
 */
static void
note_status(Attempt *a)
{
	long		status = 0;

	a->is_mixed_up |= a->is_shared && sgt_is_http1(a);
	if (a->is_mixed_up)
		return;
	curl_easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 200 || status == 101)
		a->status = (int) status;
	if (sgt_is_outage(a->status))
		curl_easy_setopt(a->easy, CURLOPT_FORBID_REUSE, 1L);
}

/*
 * Whether a header line names a transfer encoding other than "chunked".  Up
 * to 8.0 libcurl decodes such encodings although nobody asked for them, and
 * in one call: a few kilobytes can become terabytes.
 */
static bool
has_unasked_encoding(const char *line, size_t length)
{
	const char *name = "Transfer-Encoding:";
	const char *value = "chunked";
	const char *end = line + length;

	if (length < strlen(name) || pg_strncasecmp(line, name, strlen(name)) != 0)
		return false;
	line += strlen(name);
	while (line < end && sgt_is_space(*line))
		line++;
	while (end > line && sgt_is_space(end[-1]))
		end--;
	return (size_t) (end - line) != strlen(value) ||
		pg_strncasecmp(line, value, strlen(value)) != 0;
}

/*
 * Logs an attempt; of what was sent and received, only the size.
 */
void
sgt_report_attempt(const Attempt *a, int tag, int number)
{
	ereport(DEBUG1,
			(errmsg_internal("sw_guest_token: request %d, attempt %d: status %d after %.1f ms over %s connection, %zu bytes, libcurl's code %d",
							 tag, number, a->status,
							 (a->ended_us - a->started_us) / 1000.0,
							 !a->is_sent ? "no" :
							 a->n_connects > 0 ? "a new" : "a kept-alive",
							 a->header_length + a->body_length, a->code)));
}
