/*-------------------------------------------------------------------------
 * settings.c
 *		The sw_guest_token.* settings, and the credentials.
 *
 * Knows what makes a setting fit for use; sends nothing.
 *
 * 1. Settings are judged when a call uses them, all as 55000, so that their
 *    order in a file does not matter.  Only what would store a secret where
 *    every role can read it is refused when it is set.
 * 2. What was judged is kept until a setting or the token's file changes,
 *    and then gets a new generation number.
 * 3. No message quotes api_token, api_token_file or proxy: ordinary roles
 *    may not see them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/parallel.h"
#include "common/base64.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "settings.h"

#define PREFIX				"sw_guest_token"

/* Where a space lives. */
#define API_DOMAIN			".signalwire.com"

/* RFC 1035: what a DNS label may have. */
#define MAX_LABEL_LENGTH	63

/* Far beyond any API token. */
#define MAX_API_TOKEN_LENGTH	4096

/* The settings' values */
static char *space_name = NULL;
static char *project_id = NULL;
static char *api_token = NULL;
static char *api_token_file = NULL;
static char *base_url = NULL;
static char *ca_file = NULL;
static char *proxy = NULL;
static int	connect_timeout_ms;
static int	timeout_ms;
static int	max_retries;
static int	max_concurrency;

/*
 * What was made of them.  The strings live in settings_context, which is
 * reset each time.
 */
static Settings settings;
static bool settings_valid = false;
static MemoryContext settings_context = NULL;

/* The token that the file held when "settings" was made. */
static char file_token[MAX_API_TOKEN_LENGTH + 1];

static bool check_api_token(char **newval, void **extra, GucSource source);
static bool check_proxy(char **newval, void **extra, GucSource source);
static bool is_stored_openly(GucSource source);
static void note_change(const char *newval, void *extra);
static void warn_of_placeholders(void);
static MemoryContext begin_settings(void);
static void make_target(void);
static void make_credentials(void);
static bool refresh_file_token(void);
static const char *make_base_url(bool *is_https);
static const char *make_space_url(void);
static const char *read_url_part(CURLU *url, CURLUPart part,
								 unsigned int flags);
static const char *skip_scheme(const char *url);
static bool is_loopback(const char *host);
static bool has_unfit_character(const char *str);
static void read_token_file(char *token);
static void check_ca_file(void);
static void make_proxy(bool is_https);
static const char *find_environment_proxy(void);
static bool is_known_proxy_scheme(const char *scheme);
static const char *find_proxy_password(const char *url, const char **end);
static void add_secret(const char *str);
static void add_basic_secret(const char *user, const char *password);
static void refuse_setting(const char *name, const char *detail)
			pg_attribute_noreturn();

/*
 * Defines the settings; to be called once, from _PG_init().
 */
void
sgt_define_settings(void)
{
	DefineCustomStringVariable(PREFIX ".space_name",
							   gettext_noop("Sets the SignalWire space that issues the tokens."),
							   gettext_noop("One DNS label, optionally followed by \"" API_DOMAIN "\"."),
							   &space_name,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".project_id",
							   gettext_noop("Sets the project that authenticates the requests."),
							   NULL,
							   &project_id,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".api_token",
							   gettext_noop("Sets the project's API token."),
							   NULL,
							   &api_token,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY,
							   check_api_token, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".api_token_file",
							   gettext_noop("Sets the file that holds the project's API token."),
							   gettext_noop("It takes precedence over \"" PREFIX ".api_token\" and is read again when it changes."),
							   &api_token_file,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".base_url",
							   gettext_noop("Sets the URL that replaces that of the space."),
							   gettext_noop("Scheme, host, port and path prefix; \"http\" only for a loopback host."),
							   &base_url,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".ca_file",
							   gettext_noop("Sets the file of certificate authorities to trust in place of the system's."),
							   NULL,
							   &ca_file,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".proxy",
							   gettext_noop("Sets the URL of the proxy."),
							   gettext_noop("If empty, the usual environment variables count."),
							   &proxy,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY,
							   check_proxy, note_change, NULL);
	DefineCustomIntVariable(PREFIX ".connect_timeout",
							gettext_noop("Sets the maximum time for one connection attempt."),
							gettext_noop("Name look-up, TCP and TLS handshake together."),
							&connect_timeout_ms,
							5000,
							1,
							INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".timeout",
							gettext_noop("Sets the maximum time for one request."),
							gettext_noop("Every attempt and every pause included, from when it is first sent."),
							&timeout_ms,
							10000,
							1,
							INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".max_retries",
							gettext_noop("Sets the maximum number of attempts after the first."),
							NULL,
							&max_retries,
							2,
							0,
							100,
							PGC_USERSET,
							0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".max_concurrency",
							gettext_noop("Sets the maximum number of requests that one call has in flight."),
							NULL,
							&max_concurrency,
							16,
							1,
							256,
							PGC_USERSET,
							0,
							NULL, NULL, NULL);

	MarkGUCPrefixReserved(PREFIX);
	warn_of_placeholders();
}

/*
 * Hooks
 */

static bool
check_api_token(char **newval, void **extra, GucSource source)
{
	(void) extra;
	if ((*newval)[0] == '\0' || !is_stored_openly(source))
		return true;

	GUC_check_errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	GUC_check_errmsg("parameter \"%s\" cannot be set for a role, a database or a function",
					 PREFIX ".api_token");
	GUC_check_errdetail("Every role could read it in the system catalogs.");
	GUC_check_errhint("Use \"%s\" there.", PREFIX ".api_token_file");
	return false;
}

static bool
check_proxy(char **newval, void **extra, GucSource source)
{
	const char *end;

	(void) extra;
	if (!is_stored_openly(source) || !find_proxy_password(*newval, &end))
		return true;

	GUC_check_errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	GUC_check_errmsg("parameter \"%s\" with a password cannot be set for a role, a database or a function",
					 PREFIX ".proxy");
	GUC_check_errdetail("Every role could read the password in the system catalogs.");
	GUC_check_errhint("Set the parameter in the configuration file.");
	return false;
}

/*
 * PGC_S_TEST is the value on its way into the catalogs; the others are what
 * comes out of them, stored by a session that had not loaded the library.
 */
static bool
is_stored_openly(GucSource source)
{
	return source == PGC_S_TEST || source == PGC_S_GLOBAL ||
		source == PGC_S_DATABASE || source == PGC_S_USER ||
		source == PGC_S_DATABASE_USER;
}

static void
note_change(const char *newval, void *extra)
{
	(void) newval;
	(void) extra;
	settings_valid = false;
}

/*
 * Until the library is loaded, its settings are placeholders that every role
 * can read.  Preloaded by the postmaster, there is no such time.
 */
static void
warn_of_placeholders(void)
{
	const char *end;

	if (process_shared_preload_libraries_in_progress || IsParallelWorker())
		return;
	if (api_token[0] == '\0' && !find_proxy_password(proxy, &end))
		return;

	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a secret of \"%s\" was readable by every role until the library was loaded",
					PREFIX),
			 errhint("Add \"%s\" to \"shared_preload_libraries\".", PREFIX)));
}

/*
 * Judgement
 */

/*
 * Returns the settings as they are now, judged.  Raises 55000.
 */
const Settings *
sgt_load_settings(void)
{
	MemoryContext oldcontext;

	if (api_token_file[0] != '\0' && refresh_file_token())
		settings_valid = false;
	if (ca_file[0] != '\0')
		check_ca_file();
	if (!settings_valid)
	{
		oldcontext = begin_settings();
		make_target();
		make_credentials();
		MemoryContextSwitchTo(oldcontext);
		settings_valid = true;
	}

	settings.http.connect_timeout_ms = connect_timeout_ms;
	settings.http.timeout_ms = timeout_ms;
	settings.http.max_retries = max_retries;
	settings.http.max_concurrency = max_concurrency;
	return &settings;
}

/*
 * Judges one part of the settings.  Returns them, without credentials if it
 * was the target, or NULL with the error: this one is not raised.
 *
 * Judging takes no lock and changes nothing but the settings themselves, so
 * that the error can be swallowed without a subtransaction.
 */
const Settings *
sgt_check_settings(SettingsPart part, CallError *error)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	volatile bool ok = false;

	settings_valid = false;
	PG_TRY();
	{
		if (part == SETTINGS_CREDENTIALS)
			(void) sgt_load_settings();
		else
		{
			if (ca_file[0] != '\0')
				check_ca_file();
			(void) begin_settings();
			make_target();
			settings.http.connect_timeout_ms = connect_timeout_ms;
			settings.http.timeout_ms = timeout_ms;
			settings.http.max_retries = max_retries;
			settings.http.max_concurrency = max_concurrency;
		}
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData  *data;

		MemoryContextSwitchTo(oldcontext);
		data = CopyErrorData();
		if (data->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			PG_RE_THROW();
		FlushErrorState();
		error->sqlstate = data->sqlerrcode;
		error->message = data->message;
		error->detail = data->detail;
		error->hint = data->hint;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	return ok ? &settings : NULL;
}

/*
 * Throws away what was made of the settings, and returns the memory context
 * to go back to.
 */
static MemoryContext
begin_settings(void)
{
	static uint64 generation = 0;

	if (settings_context == NULL)
		settings_context = AllocSetContextCreate(TopMemoryContext,
												 "sw_guest_token settings",
												 ALLOCSET_SMALL_SIZES);
	settings_valid = false;
	MemoryContextReset(settings_context);
	memset(&settings, 0, sizeof(settings));
	settings.http.generation = ++generation;
	return MemoryContextSwitchTo(settings_context);
}

static void
make_target(void)
{
	settings.base_url = make_base_url(&settings.http.is_https);

	if (project_id[0] == '\0')
		refuse_setting("project_id", NULL);
	if (strchr(project_id, ':') || has_unfit_character(project_id))
		refuse_setting("project_id",
					   "It holds a colon, white space or a control character.");

	if (ca_file[0] != '\0')
		settings.http.ca_file = pstrdup(ca_file);
	make_proxy(settings.http.is_https);
}

static void
make_credentials(void)
{
	const char *token = api_token_file[0] ? file_token : api_token;

	if (token[0] == '\0')
		refuse_setting("api_token", NULL);
	if (has_unfit_character(token))
		refuse_setting(api_token_file[0] ? "api_token_file" : "api_token",
					   "The token holds white space or a control character.");
	settings.http.username = pstrdup(project_id);
	settings.http.password = pstrdup(token);
	add_secret(settings.http.password);
	add_basic_secret(project_id, token);
}

/*
 * Reads the token's file; true if it holds another one than before.
 */
static bool
refresh_file_token(void)
{
	char		token[MAX_API_TOKEN_LENGTH + 1];

	read_token_file(token);
	if (strcmp(token, file_token) == 0)
		return false;
	strlcpy(file_token, token, sizeof(file_token));
	return true;
}

/*
 * libcurl's parser judges, and what it made of the URL is used: it reads
 * many spellings of an address, and the one that is judged must be the one
 * that is called.
 */
static const char *
make_base_url(bool *is_https)
{
	CURLU	   *url;
	const char *authority;
	const char *scheme;
	const char *host;
	const char *port;
	const char *path;
	StringInfoData result;

	*is_https = true;
	if (base_url[0] == '\0')
		return make_space_url();

	/* what the parser would repair or pass over */
	authority = skip_scheme(base_url);
	if (has_unfit_character(base_url) || authority == NULL ||
		strchr(base_url, '\\'))
		refuse_setting("base_url", "It is not a URL.");
	if (strchr("/?#", *authority))
		refuse_setting("base_url", "It has no host.");
	if (memchr(authority, '@', strcspn(authority, "/?#")))
		refuse_setting("base_url", "It must not hold a user name or a password.");
	if (strpbrk(authority, "?#"))
		refuse_setting("base_url", "It must not hold a query or a fragment.");

	url = curl_url();
	if (url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (curl_url_set(url, CURLUPART_URL, base_url, 0) != CURLUE_OK)
	{
		curl_url_cleanup(url);
		refuse_setting("base_url", "It is not a URL.");
	}
	scheme = read_url_part(url, CURLUPART_SCHEME, 0);
	host = read_url_part(url, CURLUPART_HOST, 0);
	port = read_url_part(url, CURLUPART_PORT, 0);
	path = read_url_part(url, CURLUPART_PATH, 0);
	curl_url_cleanup(url);

	if (!scheme || !host || !path || host[0] == '\0')
		refuse_setting("base_url", "It is not a URL.");
	if (port && atoi(port) == 0)
		refuse_setting("base_url", "Its port is not valid.");
	*is_https = strcmp(scheme, "https") == 0;
	if (!*is_https && strcmp(scheme, "http") != 0)
		refuse_setting("base_url", "Its scheme must be \"https\" or \"http\".");
	if (!*is_https && !is_loopback(host))
		refuse_setting("base_url",
					   "The scheme \"http\" is for a loopback host only: it would send the API token in clear.");

	initStringInfo(&result);
	appendStringInfo(&result, "%s://%s", scheme, host);
	if (port)
		appendStringInfo(&result, ":%s", port);
	appendStringInfoString(&result, path);
	while (result.len > 0 && result.data[result.len - 1] == '/')
		result.data[--result.len] = '\0';
	return result.data;
}

static const char *
make_space_url(void)
{
	int			length = strlen(space_name);
	int			domain_length = strlen(API_DOMAIN);

	if (length == 0)
		refuse_setting("space_name", NULL);
	if (length > domain_length &&
		pg_strcasecmp(space_name + length - domain_length, API_DOMAIN) == 0)
		length -= domain_length;
	if (length > MAX_LABEL_LENGTH)
		refuse_setting("space_name", "It is not a DNS label.");
	for (int i = 0; i < length; i++)
	{
		char		c = space_name[i];
		bool		is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9');

		if (!is_alnum && (c != '-' || i == 0 || i == length - 1))
			refuse_setting("space_name", "It is not a DNS label.");
	}
	return psprintf("https://%.*s" API_DOMAIN, length, space_name);
}

/*
 * A part of a URL in the current memory context, or NULL if there is none.
 */
static const char *
read_url_part(CURLU *url, CURLUPart part, unsigned int flags)
{
	char	   *str = NULL;
	char	   *copy;

	if (curl_url_get(url, part, &str, flags) != CURLUE_OK)
		return NULL;
	copy = MemoryContextAllocExtended(CurrentMemoryContext, strlen(str) + 1,
									  MCXT_ALLOC_NO_OOM);
	if (copy)
		strcpy(copy, str);
	curl_free(str);
	return copy;
}

/*
 * What comes after the scheme of a URL, or NULL if it has none.
 */
static const char *
skip_scheme(const char *url)
{
	const char *end = url;

	if (!isalpha((unsigned char) *end))
		return NULL;
	while (isalnum((unsigned char) *end) || strchr("+-.", *end))
	{
		if (*end == '\0')
			return NULL;
		end++;
	}
	return strncmp(end, "://", 3) == 0 ? end + 3 : NULL;
}

/*
 * Takes a host as libcurl writes it: addresses normalized, IPv6 in brackets.
 */
static bool
is_loopback(const char *host)
{
	struct in_addr ipv4;
	struct in6_addr ipv6;
	char		bare[INET6_ADDRSTRLEN];
	size_t		length = strlen(host);

	if (pg_strcasecmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &ipv4) == 1)
		return (ntohl(ipv4.s_addr) >> 24) == 127;
	if (host[0] != '[' || length < 3 || length - 2 >= sizeof(bare))
		return false;
	memcpy(bare, host + 1, length - 2);
	bare[length - 2] = '\0';
	if (inet_pton(AF_INET6, bare, &ipv6) != 1)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&ipv6) ||
		(IN6_IS_ADDR_V4MAPPED(&ipv6) && ipv6.s6_addr[12] == 127);
}

static bool
has_unfit_character(const char *str)
{
	for (; *str; str++)
	{
		unsigned char c = (unsigned char) *str;

		if (c <= ' ' || c == 0x7F)
			return true;
	}
	return false;
}

/*
 * Reads the API token from its file, by the rule that the server has for
 * ssl_key_file.  What was opened is checked, so that nobody can exchange it
 * in between.
 */
static void
read_token_file(char *token)
{
	/* neither a terminal nor a FIFO may hold us up */
	int			fd = OpenTransientFile(api_token_file,
									   O_RDONLY | O_NONBLOCK | PG_BINARY);
	struct stat st;
	char	   *start = token;
	const char *problem = NULL;
	ssize_t		n = 0;

	if (fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not open the file of parameter \"%s\": %m",
						PREFIX ".api_token_file")));
	if (fstat(fd, &st) != 0)
		problem = "Its file could not be examined.";
	else if (!S_ISREG(st.st_mode))
		problem = "It is not a regular file.";
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		problem = "The file must be owned by the database user or root.";
	else if ((st.st_uid == geteuid() && st.st_mode & (S_IRWXG | S_IRWXO)) ||
			 (st.st_uid == 0 && st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)))
		problem = "The file must have permissions u=rw (0600) or less if owned by the database user, or permissions u=rw,g=r (0640) or less if owned by root.";
	else
	{
		n = read(fd, token, MAX_API_TOKEN_LENGTH + 1);
		if (n < 0)
			problem = "Its file could not be read.";
		else if (n > MAX_API_TOKEN_LENGTH)
			problem = "The file is too long.";
		else if (memchr(token, '\0', n))
			problem = "The token holds white space or a control character.";
	}
	CloseTransientFile(fd);
	if (problem)
		refuse_setting("api_token_file", problem);

	while (n > 0 && isspace((unsigned char) token[n - 1]))
		n--;
	token[n] = '\0';
	while (isspace((unsigned char) *start))
		start++;
	memmove(token, start, strlen(start) + 1);
	if (token[0] == '\0')
		refuse_setting("api_token_file", "The file is empty.");
}

/*
 * libcurl would report it at the next TLS handshake only.
 */
static void
check_ca_file(void)
{
	int			fd = OpenTransientFile(ca_file,
									   O_RDONLY | O_NONBLOCK | PG_BINARY);
	struct stat st;
	bool		is_regular;

	if (fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not open the file of parameter \"%s\": %m",
						PREFIX ".ca_file")));
	is_regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	CloseTransientFile(fd);
	if (!is_regular)
		refuse_setting("ca_file", "It is not a regular file.");
}

/*
 * Chooses the proxy as libcurl would, but judges it first: libcurl's own
 * message for one that it does not know prints the password.
 */
static void
make_proxy(bool is_https)
{
	const char *str = proxy;
	const char *full;
	const char *path;
	const char *written_password;
	const char *end;
	CURLU	   *url;
	const char *scheme;
	const char *host;
	const char *user;
	const char *password;
	bool		decodes;

	if (str[0] == '\0' && is_https)
	{
		str = find_environment_proxy();
		settings.http.use_no_proxy = true;
	}
	if (str == NULL || str[0] == '\0')
		return;

	full = skip_scheme(str) ? str : psprintf("http://%s", str);
	path = strchr(skip_scheme(full), '/');
	if (has_unfit_character(full) || strpbrk(full, "?#\\") ||
		(path && path[1] != '\0'))
		refuse_setting("proxy", "It is not the URL of a proxy.");
	url = curl_url();
	if (url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (curl_url_set(url, CURLUPART_URL, full,
					 CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
	{
		curl_url_cleanup(url);
		refuse_setting("proxy", "It is not the URL of a proxy.");
	}
	scheme = read_url_part(url, CURLUPART_SCHEME, 0);
	host = read_url_part(url, CURLUPART_HOST, 0);
	user = read_url_part(url, CURLUPART_USER, CURLU_URLDECODE);
	password = read_url_part(url, CURLUPART_PASSWORD, CURLU_URLDECODE);
	decodes = (user || !read_url_part(url, CURLUPART_USER, 0)) &&
		(password || !read_url_part(url, CURLUPART_PASSWORD, 0));
	curl_url_cleanup(url);

	/* libcurl would go without a proxy whose credentials it cannot decode */
	if (!decodes)
		refuse_setting("proxy", "Its user name or password is not valid.");
	if (!scheme || !host || host[0] == '\0' || !is_known_proxy_scheme(scheme))
		refuse_setting("proxy", "libcurl does not know such a proxy.");
	if (!is_https && !is_loopback(host))
		refuse_setting("proxy",
					   "With a plain \"http\" URL the proxy must be on a loopback host: it would see the API token in clear.");

	written_password = find_proxy_password(full, &end);
	if (written_password)
		add_secret(pnstrdup(written_password, end - written_password));
	if (password)
	{
		add_secret(password);
		add_basic_secret(user ? user : "", password);
	}
	settings.http.proxy = pstrdup(full);
}

/*
 * The environment variables that libcurl has for https, in its order.
 */
static const char *
find_environment_proxy(void)
{
	static const char *const names[] = {
		"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"
	};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		const char *value = getenv(names[i]);

		if (value && value[0] != '\0')
			return value;
	}
	return NULL;
}

static bool
is_known_proxy_scheme(const char *scheme)
{
	static const char *const schemes[] = {
		"http", "socks", "socks4", "socks4a", "socks5", "socks5h"
	};

	for (int i = 0; i < (int) lengthof(schemes); i++)
	{
		if (pg_strcasecmp(scheme, schemes[i]) == 0)
			return true;
	}
	return pg_strcasecmp(scheme, "https") == 0 &&
		curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_HTTPS_PROXY;
}

/*
 * Where the password of a proxy's URL begins and ends, or NULL.  Looks for
 * the last "@", wherever it is: better to see a password in what is no URL
 * than to miss one.
 */
static const char *
find_proxy_password(const char *url, const char **end)
{
	const char *start = skip_scheme(url);
	const char *colon;

	if (start == NULL)
		start = url;
	*end = strrchr(start, '@');
	if (*end == NULL)
		return NULL;
	colon = memchr(start, ':', *end - start);
	return colon && colon + 1 < *end ? colon + 1 : NULL;
}

static void
add_secret(const char *str)
{
	Assert(settings.secrets.n < SGT_MAX_SECRETS);
	if (str[0] != '\0')
		settings.secrets.texts[settings.secrets.n++] = str;
}

/*
 * What stands behind "Basic" in the header.
 */
static void
add_basic_secret(const char *user, const char *password)
{
	char	   *plain = psprintf("%s:%s", user, password);
	int			size = pg_b64_enc_len(strlen(plain)) + 1;
	char	   *encoded = palloc0(size);

	/* the source is an array of char up to 17, of uint8 from 18 */
	if (pg_b64_encode((const void *) plain, strlen(plain), encoded, size - 1) > 0)
		add_secret(encoded);
}

/*
 * Raises 55000 for a setting that is missing (no detail) or not fit for use.
 */
static void
refuse_setting(const char *name, const char *detail)
{
	if (detail == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("parameter \"%s.%s\" is not set", PREFIX, name)));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("parameter \"%s.%s\" cannot be used", PREFIX, name),
			 errdetail_internal("%s", detail)));
}
