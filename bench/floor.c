/*-------------------------------------------------------------------------
 * floor.c
 *		What libcurl itself costs, for script/bench to compare with.
 *
 * Usage: floor URL CALLS [CONCURRENCY [CA-FILE]]
 *
 * Sends the request that the extension sends, reads the answer into memory,
 * and does nothing else: it checks that the status is 201 and looks at no
 * byte of the body.  At concurrency 1 it is a loop over curl_easy_perform();
 * above that it uses curl_multi_perform() and curl_multi_poll().
 *
 * Prints, separated by commas: the microseconds that the process's first call
 * took, including libcurl's initialization; the microseconds that the CALLS
 * calls after it took together, those of user time and those of system time;
 * the greatest memory of the process in KiB; and an empty field.
 *-------------------------------------------------------------------------
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define PROJECT		"00000000-0000-4000-8000-000000000000"
#define API_TOKEN	"PTbench"

/* as long as the extension's: libcurl assembles headers byte by byte */
#define USER_AGENT	"sw_guest_token/1.0 PostgreSQL/15.20"
#define BODY \
	"{\"allowed_addresses\":[\"11111111-2222-3333-4444-555555555555\"]}"

typedef struct Call
{
	CURL	   *easy;
	size_t		length;
	char		answer[64 * 1024];
} Call;

static struct curl_slist *headers;

static void
fail(const char *what)
{
	fprintf(stderr, "floor: %s\n", what);
	exit(1);
}

static size_t
write_answer(char *data, size_t size, size_t n, void *arg)
{
	Call	   *call = arg;

	if (size * n > sizeof(call->answer) - call->length)
		return 0;
	memcpy(call->answer + call->length, data, size * n);
	call->length += size * n;
	return size * n;
}

static Call *
make_call(const char *url, const char *ca_file)
{
	Call	   *call = calloc(1, sizeof(Call));

	if (call == NULL || (call->easy = curl_easy_init()) == NULL)
		fail("out of memory");
	curl_easy_setopt(call->easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(call->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(call->easy, CURLOPT_URL, url);
	curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(call->easy, CURLOPT_USERAGENT, USER_AGENT);
	curl_easy_setopt(call->easy, CURLOPT_USERNAME, PROJECT);
	curl_easy_setopt(call->easy, CURLOPT_PASSWORD, API_TOKEN);
	curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, BODY);
	curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, write_answer);
	curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
	if (ca_file)
	{
		/* one connection for all, if it turns out to be HTTP/2 */
		curl_easy_setopt(call->easy, CURLOPT_PIPEWAIT, 1L);
		curl_easy_setopt(call->easy, CURLOPT_CAINFO, ca_file);
		curl_easy_setopt(call->easy, CURLOPT_CAPATH, NULL);
	}
	return call;
}

static void
check_answer(Call *call, CURLcode code)
{
	long		status = 0;

	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code != CURLE_OK || status != 201)
		fail(code != CURLE_OK ? curl_easy_strerror(code) : "not a 201");
	call->length = 0;
}

static void
run_easy(Call *call, int n)
{
	while (n-- > 0)
		check_answer(call, curl_easy_perform(call->easy));
}

static void
run_multi(Call **calls, int concurrency, int n)
{
	CURLM	   *multi = curl_multi_init();
	int			n_started = 0;
	int			n_running = 0;
	int			n_left;
	CURLMsg    *message;

	if (multi == NULL)
		fail("out of memory");
	for (; n_started < concurrency && n_started < n; n_started++)
		curl_multi_add_handle(multi, calls[n_started]->easy);
	do
	{
		curl_multi_perform(multi, &n_running);
		while ((message = curl_multi_info_read(multi, &n_left)) != NULL)
		{
			Call	   *call;
			CURL	   *easy = message->easy_handle;
			CURLcode	code = message->data.result;

			curl_easy_getinfo(easy, CURLINFO_PRIVATE, &call);
			check_answer(call, code);
			curl_multi_remove_handle(multi, easy);
			if (n_started < n)
			{
				curl_multi_add_handle(multi, easy);
				n_started++;
				n_running++;
			}
		}
		if (n_running > 0)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	} while (n_running > 0);
}

static double
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static double
as_us(struct timeval time)
{
	return time.tv_sec * 1e6 + time.tv_usec;
}

int
main(int argc, char **argv)
{
	int			n = argc > 2 ? atoi(argv[2]) : 0;
	int			concurrency = argc > 3 ? atoi(argv[3]) : 1;
	const char *ca_file = argc > 4 ? argv[4] : NULL;
	double		start = now_us();
	double		first;
	struct rusage before;
	struct rusage after;
	Call	  **calls;

	if (n < 0 || argc < 3 || concurrency < 1)
		fail("usage: floor URL CALLS [CONCURRENCY [CA-FILE]]");

	curl_global_init(CURL_GLOBAL_DEFAULT);
	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Accept: application/json");
	headers = curl_slist_append(headers, "Expect:");
	calls = calloc(concurrency, sizeof(Call *));
	if (headers == NULL || calls == NULL)
		fail("out of memory");
	calls[0] = make_call(argv[1], ca_file);
	run_easy(calls[0], 1);
	first = now_us() - start;

	for (int i = 1; i < concurrency; i++)
		calls[i] = make_call(argv[1], ca_file);
	getrusage(RUSAGE_SELF, &before);
	start = now_us();
	if (concurrency == 1)
		run_easy(calls[0], n);
	else
		run_multi(calls, concurrency, n);
	start = now_us() - start;
	getrusage(RUSAGE_SELF, &after);

	printf("%.0f,%.0f,%.0f,%.0f,%ld,\n", first, start,
		   as_us(after.ru_utime) - as_us(before.ru_utime),
		   as_us(after.ru_stime) - as_us(before.ru_stime), after.ru_maxrss);
	return 0;
}
