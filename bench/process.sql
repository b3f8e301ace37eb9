-- What the kernel says about the session's process: CPU time to the nanosecond, but
-- user and system time separately only in ticks of 10 ms; the greatest resident
-- memory so far, the memory of the process alone, and its share of all memory that
-- it uses.
CREATE VIEW process AS
SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::float8 / 1000 AS cpu_us,
       tick[12]::float8 AS user_ticks, tick[13]::float8 AS system_ticks,
       substring(status FROM 'VmHWM:\s*(\d+)')::int AS peak_kib,
       substring(status FROM 'RssAnon:\s*(\d+)')::int AS private_kib,
       substring(pg_read_file('/proc/self/smaps_rollup') FROM 'Pss:\s*(\d+)')::int AS share_kib
  FROM pg_read_file('/proc/self/status') AS status,
       string_to_array(split_part(pg_read_file('/proc/self/stat'), ') ', 2), ' ') AS tick;
