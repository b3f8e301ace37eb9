/*-------------------------------------------------------------------------
 * libcurl.h
 *		libcurl as a whole: whether a backend can use it.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_LIBCURL_H
#define SGT_LIBCURL_H

#include <curl/curl.h>

/* CURLOPT_QUICK_EXIT, without which a cancel waits for a name look-up */
#define MIN_LIBCURL_VERSION	0x075700

#if LIBCURL_VERSION_NUM < MIN_LIBCURL_VERSION
#error "sw_guest_token needs libcurl 7.87 or newer: older versions cannot abandon a name look-up"
#endif

/* This raises an error if libcurl cannot be used. */
extern void sgt_initialize_libcurl(void);

#endif							/* SGT_LIBCURL_H */
