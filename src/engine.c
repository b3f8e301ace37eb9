/*-------------------------------------------------------------------------
 * engine.c
 *		libcurl in a backend: its handles, sockets, timer and signals.
 *
 * Knows how libcurl and the server live together; knows nothing of retries,
 * deadlines or batches, which are for http.c.
 *
 * libcurl never waits by itself.  It names the sockets and the moment that it
 * waits for, and the backend sleeps on its latch, the postmaster's death and
 * all those sockets at once.  The engine lives as long as the backend, and
 * with it the connections that are kept alive.
 *
 * 1. No ereport() while libcurl is on the stack.  A callback that fails
 *    leaves a note in its transfer and returns libcurl's failure value.
 * 2. All signals are blocked while libcurl is on the stack: it may start a
 *    thread, which inherits the mask, and PostgreSQL's signal handlers must
 *    not run there.
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
#include "mux.h"

/* CURLOPT_QUICK_EXIT, without which a cancel waits for a name look-up */
#define MIN_LIBCURL_VERSION	0x075700

#if LIBCURL_VERSION_NUM < 0x075700
#error "sw_guest_token needs libcurl 7.87 or newer: older versions cannot abandon a name look-up"
#endif

/*
 * A pair of tokens at their greatest length is 128 kB; whatever is larger
 * than this is not an answer.
 */
#define MAX_BODY_LENGTH		(1024 * 1024)

/* libcurl has a limit of its own, which it reports as a broken connection. */
#define MAX_HEADER_LENGTH	(256 * 1024)

/* Response buffers beyond this are not kept between batches. */
#define MAX_KEPT_BUFFER		(64 * 1024)

/*
 * Idle connections that a backend keeps: what a batch of the default
 * concurrency uses.
 */
#define MAX_KEPT_CONNECTIONS	16

/* Descriptors that the engine holds: the multiplexer, libcurl's wake-up pair. */
#define ENGINE_DESCRIPTORS	3

#define MAX_READY			64

Transfer  **sgt_transfers = NULL;
int			sgt_n_transfers = 0;

static struct
{
	bool		ready;
	bool		initialized;	/* libcurl as a whole, once */
	CURLM	   *multi;
	struct curl_slist *headers;
	Mux			mux;
	bool		descriptors_booked;
	WaitEventSet *wait_set;
	uint32		wait_event;
	int			n_sockets;		/* that libcurl has open */
	int64		timer_us;		/* when libcurl wants a turn anyway */
	bool		failed;			/* cannot go on */
}			engine = {.mux.fd = -1,.timer_us = NEVER};

static const char *open_engine(void);
static bool open_multi(void);
static void free_transfer(Transfer *t);
static bool configure(Transfer *t, const HttpConfig *config);
static bool fails_in_tls(CURLcode code);
static void perform_sockets(void);
static void perform_timers(void);
static size_t write_body(char *data, size_t size, size_t n, void *arg);
static size_t read_header(char *line, size_t size, size_t n, void *arg);
static curl_socket_t open_socket(void *arg, curlsocktype purpose,
								 struct curl_sockaddr *addr);
static int	close_socket(void *arg, curl_socket_t sock);
static int	watch_socket(CURL *easy, curl_socket_t sock, int what, void *arg,
						 void *socket_arg);
static int	set_timer(CURLM *multi, long timeout_ms, void *arg);

/*
 * The engine's life
 */

/*
 * Makes the engine ready, if it is not yet.
 */
void
sgt_engine_open(void)
{
	sigset_t	saved;
	const char *failure;

	if (engine.ready)
		return;
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

	sgt_block_signals(&saved);
	failure = open_engine();
	sgt_restore_signals(&saved);
	if (failure)
	{
		sgt_engine_discard();
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not set up HTTP: %s", failure)));
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
	engine.ready = true;
}

/*
 * Opens what belongs to libcurl.  Returns what failed, or NULL.
 *
 * libcurl is initialised here and not in _PG_init(): that may run in the
 * postmaster, whose children must not inherit a library that has threads.
 */
static const char *
open_engine(void)
{
	static const char *const headers[] = {
		"Content-Type: application/json",
		"Accept: application/json",
		"Expect:"
	};

	if (!engine.initialized && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return "libcurl could not be initialized";
	engine.initialized = true;

	for (int i = 0; i < ENGINE_DESCRIPTORS; i++)
		ReserveExternalFD();
	engine.descriptors_booked = true;
	if (!sgt_mux_open(&engine.mux))
		return "no descriptor is left";
	if (!open_multi())
		return "libcurl is out of memory or descriptors";
	for (int i = 0; i < (int) lengthof(headers); i++)
	{
		struct curl_slist *longer = curl_slist_append(engine.headers,
													  headers[i]);

		if (longer == NULL)
			return "libcurl is out of memory";
		engine.headers = longer;
	}

	return NULL;
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
	sigset_t	saved;

	if (sgt_n_transfers > 1)
	{
		sgt_block_signals(&saved);
		while (sgt_n_transfers > 1)
			free_transfer(sgt_transfers[--sgt_n_transfers]);
		sgt_restore_signals(&saved);
	}
	if (sgt_n_transfers > 0 && sgt_transfers[0]->body_size > MAX_KEPT_BUFFER)
	{
		free(sgt_transfers[0]->body);
		sgt_transfers[0]->body = NULL;
		sgt_transfers[0]->body_size = 0;
	}

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
	sigset_t	saved;

	sgt_block_signals(&saved);
	while (sgt_n_transfers > 0)
		free_transfer(sgt_transfers[--sgt_n_transfers]);
	if (engine.multi)
		curl_multi_cleanup(engine.multi);
	engine.multi = NULL;
	curl_slist_free_all(engine.headers);
	engine.headers = NULL;
	sgt_restore_signals(&saved);

	if (sgt_transfers)
		pfree(sgt_transfers);
	sgt_transfers = NULL;
	if (engine.wait_set)
		FreeWaitEventSet(engine.wait_set);
	engine.wait_set = NULL;
	sgt_mux_close(&engine.mux);
	for (int i = 0; engine.descriptors_booked && i < ENGINE_DESCRIPTORS; i++)
		ReleaseExternalFD();
	engine.descriptors_booked = false;
	Assert(engine.n_sockets == 0);
	engine.timer_us = NEVER;
	engine.failed = false;
	engine.ready = false;
}

static void
free_transfer(Transfer *t)
{
	if (t->easy)
	{
		/* does nothing if the handle is not there */
		curl_multi_remove_handle(engine.multi, t->easy);
		curl_easy_cleanup(t->easy);
	}
	free(t->body);
	free(t);
}

/*
 * Transfers
 */

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
 * Lets libcurl start an attempt; false if memory is short.
 *
 * Waiting for others' connections to turn out to be HTTP/2 saves handshakes,
 * but makes connection attempts serial.
 */
bool
sgt_transfer_start(Transfer *t, const HttpConfig *config,
				   bool wait_for_others)
{
	t->socket = CURL_SOCKET_BAD;
	t->started_us = sgt_now_us();
	t->connected_us = 0;
	t->code = CURLE_OK;
	t->is_unreported = false;
	t->no_descriptor = false;
	t->no_memory = false;
	t->too_large = false;
	t->status = 0;
	t->header_length = 0;
	t->body_length = 0;
	t->reason[0] = '\0';

	return configure(t, config) &&
		curl_easy_setopt(t->easy, CURLOPT_URL, t->request.url) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE,
						 (long) strlen(t->request.body)) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS,
						 t->request.body) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS,
						 (long) config->connect_timeout_ms) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT,
						 (long) t->wants_fresh) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_PIPEWAIT,
						 (long) wait_for_others) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_CERTINFO,
						 t->request.probe ? 1L : 0L) == CURLE_OK &&
		curl_multi_add_handle(engine.multi, t->easy) == CURLM_OK;
}

/*
 * Takes the transfer away from libcurl, which closes its connection unless
 * the attempt is done.
 */
void
sgt_transfer_stop(Transfer *t)
{
	curl_multi_remove_handle(engine.multi, t->easy);
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
 * Makes the transfer's handle and gives it the options that all requests
 * share; false if memory is short.
 */
static bool
configure(Transfer *t, const HttpConfig *config)
{
	CURLcode	code = CURLE_OK;

#define SET(option, value) \
	do { \
		if (code == CURLE_OK) \
			code = curl_easy_setopt(t->easy, (option), (value)); \
	} while (0)

	if (t->easy && t->generation == config->generation)
		return true;

	t->generation = 0;
	if (t->easy)
		curl_easy_reset(t->easy);
	else
		t->easy = curl_easy_init();
	if (t->easy == NULL)
		return false;

	/* how libcurl is to behave in a backend */
	SET(CURLOPT_NOSIGNAL, 1L);	/* SIGALRM is PostgreSQL's */
	SET(CURLOPT_QUICK_EXIT, 1L);	/* never wait for a name look-up's thread */
	SET(CURLOPT_PRIVATE, t);
	SET(CURLOPT_ERRORBUFFER, t->reason);
	SET(CURLOPT_WRITEFUNCTION, write_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, read_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);

	/* what is sent */
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_HTTPHEADER, engine.headers);
	SET(CURLOPT_USERAGENT,
		"sw_guest_token/" SGT_VERSION " PostgreSQL/" PG_VERSION);
	SET(CURLOPT_HTTPAUTH, (long) CURLAUTH_BASIC);
	if (config->username)
	{
		SET(CURLOPT_USERNAME, config->username);
		SET(CURLOPT_PASSWORD, config->password);
	}

	/* where to, and whom to trust: some are defaults, but matter too much */
	SET(CURLOPT_PROTOCOLS_STR, config->is_https ? "https" : "http");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_PROXY, config->proxy ? config->proxy : "");
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (!config->use_no_proxy)
		SET(CURLOPT_NOPROXY, "");
	if (config->ca_file)
	{
		/* in place of the system's store, which may also be a directory */
		SET(CURLOPT_CAINFO, config->ca_file);
		SET(CURLOPT_CAPATH, NULL);
		SET(CURLOPT_PROXY_CAINFO, config->ca_file);
		SET(CURLOPT_PROXY_CAPATH, NULL);

		/* it may be replaced at any time: libcurl would remember it for a day */
		SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
	}
#undef SET

	if (code != CURLE_OK)
		return false;
	t->generation = config->generation;
	return true;
}

/*
 * Turns
 */

/*
 * Gives libcurl a turn.  "max_connections" bounds those that are kept in
 * mind while the batch runs, so that a draining one closes what the next
 * would not need.
 */
void
sgt_engine_perform(bool sockets_ready, int max_connections)
{
	curl_multi_setopt(engine.multi, CURLMOPT_MAXCONNECTS,
					  (long) Max(max_connections, MAX_KEPT_CONNECTIONS));
	if (sockets_ready)
		perform_sockets();
	perform_timers();
}

static void
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
	}
}

/*
 * libcurl asks for a turn at once to go on with what it could do right away,
 * several times for one request.
 */
static void
perform_timers(void)
{
	int64		now = sgt_now_us();

	for (int i = 0; i < MAX_READY && engine.timer_us <= now; i++)
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
 * Signals and time
 */

void
sgt_block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

void
sgt_restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* Monotonic, in microseconds. */
int64
sgt_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64CONST(1000000) + now.tv_nsec / 1000;
}
