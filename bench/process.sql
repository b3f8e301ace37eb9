-- What the kernel says of the session's process: CPU time, which it knows to the
-- nanosecond, though user and system time apart only in ticks of 10 ms; the
-- greatest resident memory so far, that of the process alone, and its share of all
-- memory that it uses.
CREATE VIEW process AS
SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::float8 / 1000 AS cpu_us,
       tick[12]::float8 AS user_ticks, tick[13]::float8 AS system_ticks,
       substring(status FROM 'VmHWM:\s*(\d+)')::int AS peak_kib,
       substring(status FROM 'RssAnon:\s*(\d+)')::int AS private_kib,
       substring(pg_read_file('/proc/self/smaps_rollup') FROM 'Pss:\s*(\d+)')::int AS share_kib
  FROM pg_read_file('/proc/self/status') AS status,
       string_to_array(split_part(pg_read_file('/proc/self/stat'), ') ', 2), ' ') AS tick;
