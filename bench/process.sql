-- What the kernel says of the session's process: CPU time, which it knows to the
-- nanosecond, though not in which parts (these come in ticks of 10 ms); the greatest
-- resident memory so far, that of the process alone, and its share of all memory
-- that it uses.
CREATE VIEW process AS
SELECT round(cpu_ns / 1000 * user_part) AS user_us, round(cpu_ns / 1000 * (1 - user_part)) AS system_us,
       substring(status FROM 'VmHWM:\s*(\d+)')::int AS peak_kib,
       substring(status FROM 'RssAnon:\s*(\d+)')::int AS private_kib,
       substring(pg_read_file('/proc/self/smaps_rollup') FROM 'Pss:\s*(\d+)')::int AS share_kib
  FROM pg_read_file('/proc/self/status') AS status,
       string_to_array(split_part(pg_read_file('/proc/self/stat'), ') ', 2), ' ') AS tick,
       coalesce(tick[12]::float8 / nullif(tick[12]::int + tick[13]::int, 0), 0.5) AS user_part,
       CAST(split_part(pg_read_file('/proc/self/schedstat'), ' ', 1) AS float8) AS cpu_ns;
