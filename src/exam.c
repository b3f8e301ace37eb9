/*-------------------------------------------------------------------------
 * exam.c
 *		How far an attempt got, for the doctor.
 *
 * It asks libcurl for what only the doctor shows: the time of each step, the
 * server's clock and its certificate.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <time.h>

#include "exam.h"

static void examine_times(const Attempt *a, AttemptExam *exam);
static void examine_certificate(const Attempt *a, AttemptExam *exam);
static bool fails_in_tls(CURLcode code);

/*
 * Tells how far an attempt got.
 */
void
sgt_examine_attempt(const Attempt *a, AttemptExam *exam)
{
	struct curl_header *date;

	exam->local_time = (int64) time(NULL);
	exam->status = a->status;
	exam->server_time = -1;
	exam->expires = -1;
	examine_times(a, exam);
	if (curl_easy_header(a->easy, "Date", 0, CURLH_HEADER, -1,
						 &date) == CURLHE_OK)
		exam->server_time = (int64) curl_getdate(date->value, NULL);
	examine_certificate(a, exam);
}

static void
examine_times(const Attempt *a, AttemptExam *exam)
{
	curl_off_t	resolved_us = 0;
	curl_off_t	connected_us = 0;
	curl_off_t	ready_us = 0;
	curl_off_t	answered_us = 0;
	long		proxy_error = 0;

	/* a SOCKS proxy may have to be told the host's address */
	curl_easy_getinfo(a->easy, CURLINFO_PROXY_ERROR, &proxy_error);
	if (proxy_error == CURLPX_RESOLVE_HOST ||
		a->code == CURLE_COULDNT_RESOLVE_HOST)
		return;
	curl_easy_getinfo(a->easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved_us);
	curl_easy_getinfo(a->easy, CURLINFO_CONNECT_TIME_T, &connected_us);
	/* from 8.22 on libcurl fills it in at the end in any case */
	if (a->is_sent)
		curl_easy_getinfo(a->easy, CURLINFO_PRETRANSFER_TIME_T, &ready_us);
	curl_easy_getinfo(a->easy, CURLINFO_STARTTRANSFER_TIME_T, &answered_us);

	/* libcurl reports a connection only once all that follows it is done */
	if (connected_us == 0 && a->connected_us != 0)
		connected_us = Max(a->connected_us - a->started_us, resolved_us + 1);
	else if (connected_us == 0 && fails_in_tls(a->code))
		connected_us = resolved_us + 1;
	exam->resolve_us = resolved_us;
	exam->connect_us = Max(connected_us - resolved_us, 0);
	if (connected_us > 0)
		exam->tls_us = Max(ready_us - connected_us, 0);
	if (a->status != 0)
		exam->answer_us = Max(answered_us - ready_us, 1);
}

/*
 * The first certificate is the server's own.
 */
static void
examine_certificate(const Attempt *a, AttemptExam *exam)
{
	struct curl_certinfo *certificates = NULL;

	curl_easy_getinfo(a->easy, CURLINFO_CERTINFO, &certificates);
	if (certificates == NULL || certificates->num_of_certs < 1)
		return;
	for (struct curl_slist *item = certificates->certinfo[0]; item;
		 item = item->next)
	{
		if (strncmp(item->data, "Issuer:", 7) == 0)
			strlcpy(exam->issuer, item->data + 7, sizeof(exam->issuer));
		else if (strncmp(item->data, "Expire date:", 12) == 0)
			exam->expires = (int64) curl_getdate(item->data + 12, NULL);
	}
}

static bool
fails_in_tls(CURLcode code)
{
	return code == CURLE_SSL_CONNECT_ERROR ||
		code == CURLE_PEER_FAILED_VERIFICATION ||
		code == CURLE_SSL_CACERT_BADFILE ||
		code == CURLE_SSL_ISSUER_ERROR;
}
