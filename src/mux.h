/*-------------------------------------------------------------------------
 * mux.h
 *		One descriptor that tells which of many sockets are ready.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_MUX_H
#define SGT_MUX_H

#include <stdbool.h>

#define MUX_READ	(1 << 0)
#define MUX_WRITE	(1 << 1)
#define MUX_ERROR	(1 << 2)	/* reported, never asked for */

typedef struct MuxEvent
{
	int			fd;
	int			events;
} MuxEvent;

extern int	sgt_mux_open(void);
extern bool sgt_mux_watch(int mux, int fd, int events, int old_events);
extern int	sgt_mux_ready(int mux, MuxEvent *events, int max_events);

#endif							/* SGT_MUX_H */
