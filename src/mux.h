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
	int			socket;
	int			events;
} MuxEvent;

/* What is known of a socket; one that is not known is all zero. */
typedef struct MuxSocket
{
	unsigned char wanted;		/* the events that are waited for */
	unsigned char registered;	/* those that the kernel reports */
	bool		is_owned;		/* sgt_mux_remove() comes before its end */
} MuxSocket;

typedef struct Mux
{
	int			fd;				/* -1: closed */
	MuxSocket  *sockets;		/* by their number */
	int			n_sockets;
} Mux;

extern bool sgt_mux_open(Mux *mux);
extern void sgt_mux_close(Mux *mux);
extern bool sgt_mux_add(Mux *mux, int socket);
extern void sgt_mux_remove(Mux *mux, int socket);
extern bool sgt_mux_watch(Mux *mux, int socket, int events);
extern int	sgt_mux_ready(Mux *mux, MuxEvent *events, int max_events);

#endif							/* SGT_MUX_H */
