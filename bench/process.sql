-- What the kernel says of the session's process: CPU time (its ticks are 10 ms),
-- the greatest resident memory so far, that of the process alone, and its share
-- of all memory that it uses.
CREATE VIEW process AS
SELECT tick[12]::bigint * 10000 AS user_us, tick[13]::bigint * 10000 AS system_us,
       substring(status FROM 'VmHWM:\s*(\d+)')::int AS peak_kib,
       substring(status FROM 'RssAnon:\s*(\d+)')::int AS private_kib,
       substring(pg_read_file('/proc/self/smaps_rollup') FROM 'Pss:\s*(\d+)')::int AS share_kib
  FROM pg_read_file('/proc/self/status') AS status,
       string_to_array(split_part(pg_read_file('/proc/self/stat'), ') ', 2), ' ') AS tick;
