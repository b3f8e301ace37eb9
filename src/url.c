/*-------------------------------------------------------------------------
 * url.c
 *		The URLs of the API and of proxies, judged before they are used.
 *
 * libcurl's parser judges, and its result is what is used: it reads many
 * spellings of an address, and the address that is judged must be the one that
 * is called.  What the parser would repair or ignore is refused beforehand.
 *
 * A URL may hold a password: no message quotes one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <netinet/in.h>

#include "lib/stringinfo.h"

#include "error.h"
#include "libcurl.h"
#include "messages.h"
#include "url.h"

/* Where a space lives. */
#define API_DOMAIN			".signalwire.com"

/* RFC 1035: what a DNS label may have; a hyphen not at either end. */
#define MAX_LABEL_LENGTH	63
#define LABEL_CHARACTERS \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"

/* A URL as libcurl's parser sees it; NULL pointers stand for absent parts. */
typedef struct UrlParts
{
	const char *scheme;
	const char *user;			/* decoded */
	const char *password;		/* decoded */
	const char *host;
	const char *zone;			/* of an IPv6 address; "host" lacks it */
	const char *port;
	const char *path;
	bool		decodes;		/* user and password can be decoded */
} UrlParts;

static bool parse_url(const char *str, unsigned int flags, UrlParts *parts);
static const char *read_part(CURLU *url, CURLUPart part, unsigned int flags);
static const char *skip_scheme(const char *url);
static bool is_loopback(const char *host);
static bool is_known_proxy_scheme(const char *scheme);

/*
 * The name of a SignalWire space, with or without its domain.
 */
const char *
sgt_read_space_name(const char *str, ApiUrl *result)
{
	int			length = strlen(str);
	int			domain_length = strlen(API_DOMAIN);

	if (strchr(str, '/'))
		return gettext_noop("It must be the name of a space, not a URL.");
	if (length > domain_length &&
		pg_strcasecmp(str + length - domain_length, API_DOMAIN) == 0)
		length -= domain_length;
	if (length < 1 || length > MAX_LABEL_LENGTH ||
		(int) strspn(str, LABEL_CHARACTERS) < length ||
		str[0] == '-' || str[length - 1] == '-')
		return gettext_noop("It is not a DNS label.");
	result->url = psprintf("https://%.*s" API_DOMAIN, length, str);
	result->is_https = true;
	return NULL;
}

/*
 * Scheme, host, port and path prefix of the API.
 */
const char *
sgt_read_base_url(const char *str, ApiUrl *result)
{
	const char *authority = skip_scheme(str);
	UrlParts	parts;
	StringInfoData url;

	if (sgt_has_unfit_character(str) || authority == NULL || strchr(str, '\\'))
		return gettext_noop("It is not a URL.");
	if (strchr("/?#", *authority))
		return gettext_noop("It has no host.");
	if (memchr(authority, '@', strcspn(authority, "/?#")))
		return gettext_noop("It must not contain a user name or a password.");
	if (strpbrk(authority, "?#"))
		return gettext_noop("It must not contain a query or a fragment.");

	if (!parse_url(str, 0, &parts) || !parts.path)
		return gettext_noop("It is not a URL.");
	if (parts.zone)
		return gettext_noop("Its host must not have a zone.");
	if (parts.port && atoi(parts.port) == 0)
		return gettext_noop("Its port is not valid.");
	result->is_https = strcmp(parts.scheme, "https") == 0;
	if (!result->is_https && strcmp(parts.scheme, "http") != 0)
		return gettext_noop("Its scheme must be \"https\" or \"http\".");
	if (!result->is_https && !is_loopback(parts.host))
		return gettext_noop("The scheme \"http\" is for a loopback host only: it would send the API token in clear text.");

	initStringInfo(&url);
	appendStringInfo(&url, "%s://%s", parts.scheme, parts.host);
	if (parts.port)
		appendStringInfo(&url, ":%s", parts.port);
	appendStringInfoString(&url, parts.path);
	while (url.len > 0 && url.data[url.len - 1] == '/')
		url.data[--url.len] = '\0';
	result->url = url.data;
	return NULL;
}

/*
 * The proxy that requests go through, whose URL may lack the scheme.  libcurl
 * would check the scheme, too, but its message for an unknown one prints the
 * password.
 */
const char *
sgt_read_proxy(const char *str, bool is_https, ProxyUrl *result)
{
	const char *url = skip_scheme(str) ? str : psprintf("http://%s", str);
	const char *path = strchr(skip_scheme(url), '/');
	const char *password;
	const char *end;
	UrlParts	parts;

	if (sgt_has_unfit_character(url) || strpbrk(url, "?#\\") ||
		(path && path[1] != '\0'))
		return gettext_noop("It is not the URL of a proxy.");
	if (!parse_url(url, CURLU_NON_SUPPORT_SCHEME, &parts))
		return gettext_noop("It is not the URL of a proxy.");

	/* libcurl would use no proxy if it could not decode the credentials */
	if (!parts.decodes)
		return gettext_noop("Its user name or password is not valid.");
	if (!is_known_proxy_scheme(parts.scheme))
		return gettext_noop("libcurl does not support this kind of proxy.");
	if (!is_https && !is_loopback(parts.host))
		return gettext_noop("With a plain \"http\" URL the proxy must be on a loopback host: it would see the API token in clear text.");

	password = sgt_find_proxy_password(url, &end);
	result->url = pstrdup(url);
	result->user = parts.user;
	result->password = parts.password;
	result->written_password = password ?
		pnstrdup(password, end - password) : NULL;
	return NULL;
}

/*
 * The proxy that the environment names, in the variables that libcurl has for
 * https, and in libcurl's order; NULL if it names none.
 */
const char *
sgt_find_environment_proxy(void)
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

/*
 * Where the password of a proxy's URL begins and ends, or NULL.  Looks for
 * the last "@", wherever it is: better to see a password in something that is
 * not a URL than to miss one.
 */
const char *
sgt_find_proxy_password(const char *url, const char **end)
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

/*
 * Whether a text holds white space or a control character.
 */
bool
sgt_has_unfit_character(const char *str)
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
 * Takes a URL apart; false if it is not a URL, or has no host.
 */
static bool
parse_url(const char *str, unsigned int flags, UrlParts *parts)
{
	CURLU	   *url;
	bool		ok;

	sgt_initialize_libcurl();
	url = curl_url();
	if (url == NULL)
		sgt_raise_out_of_memory();
	memset(parts, 0, sizeof(*parts));
	ok = curl_url_set(url, CURLUPART_URL, str, flags) == CURLUE_OK;
	if (ok)
	{
		parts->scheme = read_part(url, CURLUPART_SCHEME, 0);
		parts->user = read_part(url, CURLUPART_USER, CURLU_URLDECODE);
		parts->password = read_part(url, CURLUPART_PASSWORD, CURLU_URLDECODE);
		parts->host = read_part(url, CURLUPART_HOST, 0);
		parts->zone = read_part(url, CURLUPART_ZONEID, 0);
		parts->port = read_part(url, CURLUPART_PORT, 0);
		parts->path = read_part(url, CURLUPART_PATH, 0);
		parts->decodes =
			(parts->user || !read_part(url, CURLUPART_USER, 0)) &&
			(parts->password || !read_part(url, CURLUPART_PASSWORD, 0));
	}
	curl_url_cleanup(url);
	return ok && parts->scheme && parts->host && parts->host[0] != '\0';
}

/*
 * A part of a URL in the current memory context, or NULL if there is none.
 */
static const char *
read_part(CURLU *url, CURLUPart part, unsigned int flags)
{
	char	   *str = NULL;
	char	   *copy;

	if (curl_url_get(url, part, &str, flags) != CURLUE_OK)
		return NULL;
	copy = sgt_alloc_or_null(strlen(str) + 1);
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
