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

#include <ctype.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/parallel.h"
#include "common/base64.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "messages.h"
#include "settings.h"
#include "url.h"

#define PREFIX				"sw_guest_token"

/* Far beyond any API token. */
#define MAX_API_TOKEN_LENGTH	4096

/* Whether the postmaster loaded the library; each backend inherits it. */
static bool is_preloaded = false;

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

/* The token that its file held when "settings" was made. */
static char file_token[MAX_API_TOKEN_LENGTH + 1];

/*
 * That file as it was when it was judged.  To open and read it for each call
 * would take a tenth of the time of a call over the loopback interface.
 */
typedef struct KnownFile
{
	dev_t		device;
	ino_t		inode;
	time_t		changed;		/* 0: not known */
} KnownFile;

static KnownFile known_token_file;

/*
 * The certificate authorities as they were when a call last looked.  libcurl
 * keeps what it has made of them, which takes it tens of milliseconds, as long
 * as the trust's number stays the same.
 */
static struct
{
	uint64		number;
	char		path[MAXPGPATH];
	struct stat st;
}			trust;

static bool check_api_token(char **newval, void **extra, GucSource source);
static bool check_proxy(char **newval, void **extra, GucSource source);
static bool is_stored_openly(GucSource source);
static void note_change(const char *newval, void *extra);
static void warn_of_placeholders(void);
static MemoryContext begin_settings(void);
static void make_target(void);
static void make_credentials(void);
static void check_token_file(void);
static bool is_known(const KnownFile *file, const char *path);
static void get_to_know(KnownFile *file, const struct stat *st);
static void read_token_file(char *token);
static void check_ca_file(void);
static const char *find_ca_file(void);
static void check_trust(void);
static void make_proxy(void);
static void add_secret(const char *str);
static const char *add_basic_secret(const char *user, const char *password);
static void refuse_setting(const char *name, const char *detail)
			pg_attribute_noreturn();
static void refuse_with_hint(const char *name, const char *detail,
							 const char *hint) pg_attribute_noreturn();

/*
 * Defines the settings; to be called once, from _PG_init().
 */
void
sgt_define_settings(void)
{
	is_preloaded = process_shared_preload_libraries_in_progress;

	DefineCustomStringVariable(PREFIX ".space_name",
							   "Sets the SignalWire space that issues the tokens.",
							   "One DNS label, optionally followed by \".signalwire.com\".",
							   &space_name,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".project_id",
							   "Sets the project that authenticates the requests.",
							   NULL,
							   &project_id,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".api_token",
							   "Sets the project's API token.",
							   NULL,
							   &api_token,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY,
							   check_api_token, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".api_token_file",
							   "Sets the file that holds the project's API token.",
							   "It takes precedence over \"" PREFIX ".api_token\" and is read again when it changes.",
							   &api_token_file,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".base_url",
							   "Sets the URL that replaces that of the space.",
							   "Scheme, host, port and path prefix; \"http\" only for a loopback host.",
							   &base_url,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".ca_file",
							   "Sets the file of certificate authorities to trust in place of the system's.",
							   NULL,
							   &ca_file,
							   "",
							   PGC_SUSET,
							   0,
							   NULL, note_change, NULL);
	DefineCustomStringVariable(PREFIX ".proxy",
							   "Sets the URL of the proxy.",
							   "If empty, the usual environment variables count.",
							   &proxy,
							   "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY,
							   check_proxy, note_change, NULL);
	DefineCustomIntVariable(PREFIX ".connect_timeout",
							"Sets the maximum time for one connection attempt.",
							"Name look-up, TCP and TLS handshake together.",
							&connect_timeout_ms,
							5000,
							1,
							INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".timeout",
							"Sets the maximum time for one request.",
							"Every attempt and every pause included, from when it is first sent.",
							&timeout_ms,
							10000,
							1,
							INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".max_retries",
							"Sets the maximum number of attempts after the first.",
							NULL,
							&max_retries,
							2,
							0,
							100,
							PGC_USERSET,
							0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".max_concurrency",
							"Sets the maximum number of requests that one call has in flight.",
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
 * Whether the server has preloaded the library.
 */
bool
sgt_is_preloaded(void)
{
	return is_preloaded;
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
	if (!is_stored_openly(source) || !sgt_find_proxy_password(*newval, &end))
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
	known_token_file.changed = 0;
}

/*
 * Until the library is loaded, its settings are placeholders that every role
 * can read.  Preloaded by the postmaster, there is no such time.
 */
static void
warn_of_placeholders(void)
{
	const char *end;

	if (is_preloaded || IsParallelWorker())
		return;
	if (api_token[0] == '\0' && !sgt_find_proxy_password(proxy, &end))
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

	check_token_file();
	check_trust();
	if (!settings_valid)
	{
		oldcontext = begin_settings();
		make_target();
		make_credentials();
		MemoryContextSwitchTo(oldcontext);
		settings_valid = true;
	}

	settings.http.trust = trust.number;
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
			(void) begin_settings();
			make_target();
			check_trust();
			settings.http.trust = trust.number;
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
	ApiUrl		url;
	const char *problem;

	if (base_url[0] != '\0')
	{
		problem = sgt_read_base_url(base_url, &url);
		if (problem)
			refuse_setting("base_url", problem);
	}
	else
	{
		if (space_name[0] == '\0')
			refuse_setting("space_name", NULL);
		problem = sgt_read_space_name(space_name, &url);
		if (problem)
			refuse_with_hint("space_name", problem,
							 gettext_noop("Write \"example\" or \"example.signalwire.com\"; any other host belongs in \"sw_guest_token.base_url\"."));
	}
	settings.base_url = url.url;
	settings.http.is_https = url.is_https;

	if (project_id[0] == '\0')
		refuse_setting("project_id", NULL);
	if (strchr(project_id, ':') || sgt_has_unfit_character(project_id))
		refuse_setting("project_id",
					   "It holds a colon, white space or a control character.");

	if (ca_file[0] != '\0')
		check_ca_file();
	if (find_ca_file())
		settings.http.ca_file = pstrdup(find_ca_file());
	make_proxy();
}

static void
make_credentials(void)
{
	const char *token = api_token_file[0] ? file_token : api_token;

	if (token[0] == '\0')
		refuse_with_hint("api_token", NULL,
						 gettext_noop("Write the API token into a file that only the server's user can read, and name it in \"sw_guest_token.api_token_file\"."));
	if (sgt_has_unfit_character(token))
		refuse_setting(api_token_file[0] ? "api_token_file" : "api_token",
					   "The token holds white space or a control character.");
	add_secret(pstrdup(token));
	settings.http.authorization =
		psprintf("Basic %s", add_basic_secret(project_id, token));
}

/*
 * Reads the token's file if it may have changed.
 */
static void
check_token_file(void)
{
	char		token[MAX_API_TOKEN_LENGTH + 1];

	if (api_token_file[0] == '\0' ||
		is_known(&known_token_file, api_token_file))
		return;

	read_token_file(token);
	if (strcmp(token, file_token) != 0)
	{
		strlcpy(file_token, token, sizeof(file_token));
		settings_valid = false;
	}
}

/*
 * Whether a path still leads to the file that was judged, and nothing was
 * done to the file since: contents, owner and permissions all leave a trace
 * in the time of its last change, which nobody can set.
 */
static bool
is_known(const KnownFile *file, const char *path)
{
	struct stat st;

	return file->changed != 0 && stat(path, &st) == 0 &&
		st.st_dev == file->device && st.st_ino == file->inode &&
		st.st_ctime == file->changed;
}

/*
 * To be called with what was open, before it is read.  A file that has only
 * just changed stays unknown: its next change might leave the same time.
 */
static void
get_to_know(KnownFile *file, const struct stat *st)
{
	bool		is_settled = st->st_ctime < time(NULL) - 2;

	file->device = st->st_dev;
	file->inode = st->st_ino;
	file->changed = is_settled ? st->st_ctime : 0;
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
	KnownFile	known;
	char	   *start = token;
	const char *problem = NULL;
	ssize_t		n = 0;

	if (fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not open the file of parameter \"%s\": %m",
						PREFIX ".api_token_file")));
	if (fstat(fd, &st) != 0)
		problem = gettext_noop("Its file could not be examined.");
	else if (!S_ISREG(st.st_mode))
		problem = gettext_noop("It is not a regular file.");
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		problem = gettext_noop("The file must be owned by the database user or root.");
	else if ((st.st_uid == geteuid() && st.st_mode & (S_IRWXG | S_IRWXO)) ||
			 (st.st_uid == 0 && st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)))
		problem = gettext_noop("The file must have permissions u=rw (0600) or less if owned by the database user, or permissions u=rw,g=r (0640) or less if owned by root.");
	else
	{
		get_to_know(&known, &st);
		n = read(fd, token, MAX_API_TOKEN_LENGTH + 1);
		if (n < 0)
			problem = gettext_noop("Its file could not be read.");
		else if (n > MAX_API_TOKEN_LENGTH)
			problem = gettext_noop("The file is too long.");
		else if (memchr(token, '\0', n))
			problem = gettext_noop("The token holds white space or a control character.");
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
	known_token_file = known;
}

/*
 * libcurl reads the file at the next TLS handshake; if that were all, a plain
 * mistake would have to wait for one.
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
 * The file of certificate authorities to trust, the system's if none is set;
 * NULL if libcurl has another way to find those.
 *
 * Where the system has a directory of them as well, it holds the same ones, and
 * libcurl would keep nothing that it has read from there.
 */
static const char *
find_ca_file(void)
{
	return ca_file[0] ? ca_file : curl_version_info(CURLVERSION_NOW)->cainfo;
}

/*
 * Gives the trust a new number if the file may hold other authorities than it
 * did when the last call looked.
 */
static void
check_trust(void)
{
	const char *path = find_ca_file();
	struct stat st = {0};

	if (path == NULL)
		return;
	(void) stat(path, &st);		/* one that is gone is another one, too */
	if (strcmp(path, trust.path) == 0 &&
		st.st_dev == trust.st.st_dev && st.st_ino == trust.st.st_ino &&
		st.st_size == trust.st.st_size &&
		st.st_ctim.tv_sec == trust.st.st_ctim.tv_sec &&
		st.st_ctim.tv_nsec == trust.st.st_ctim.tv_nsec)
		return;
	trust.number++;
	strlcpy(trust.path, path, sizeof(trust.path));
	trust.st = st;
}

static void
make_proxy(void)
{
	const char *str = proxy;
	const char *problem;
	ProxyUrl	url;

	if (str[0] == '\0' && settings.http.is_https)
	{
		str = sgt_find_environment_proxy();
		settings.http.use_no_proxy = true;
	}
	if (str == NULL || str[0] == '\0')
		return;

	problem = sgt_read_proxy(str, settings.http.is_https, &url);
	if (problem)
		refuse_setting("proxy", problem);
	settings.http.proxy = url.url;
	if (url.written_password)
		add_secret(url.written_password);
	if (url.password)
	{
		add_secret(url.password);
		add_basic_secret(url.user ? url.user : "", url.password);
	}
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
static const char *
add_basic_secret(const char *user, const char *password)
{
	char	   *plain = psprintf("%s:%s", user, password);
	int			size = pg_b64_enc_len(strlen(plain)) + 1;
	char	   *encoded = palloc0(size);

	/* the source is an array of char up to 17, of uint8 from 18 */
	if (pg_b64_encode((const void *) plain, strlen(plain), encoded, size - 1) < 0)
		elog(ERROR, "could not encode credentials");
	add_secret(encoded);
	return encoded;
}

/*
 * Raises 55000 for a setting that is missing (no detail) or not fit for use.
 */
static void
refuse_setting(const char *name, const char *detail)
{
	refuse_with_hint(name, detail, NULL);
}

static void
refuse_with_hint(const char *name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 detail ?
			 errmsg("parameter \"%s.%s\" cannot be used", PREFIX, name) :
			 errmsg("parameter \"%s.%s\" is not set", PREFIX, name),
			 detail ? errdetail_internal("%s", _(detail)) : 0,
			 hint ? errhint("%s", _(hint)) : 0));
}
