# The charts of script/bench, from what report.sql has written.

set terminal svg size 760,420 font "sans-serif,13" background "#ffffff"
set datafile separator tab
set border 3 lc rgb "#666666"
set tics nomirror
set grid ytics lc rgb "#dddddd"
set style fill solid 0.9 noborder
set errorbars 0.6
array color[6] = ["#888888", "#0b7285", "#66a9b5", "#e8a33d", "#c2544d", "#7b5ea7"]
array name[6] = ["bare libcurl", "sw\\_guest\\_token", "the same, token in a setting", "pgsql-http", "PL/Python with requests", "PL/pgSQL, one by one"]

set output "one_call.svg"
set title "One call after the other, connection kept alive (less is better)"
set ylabel "microseconds per call"
set xtics ("HTTP/1.1" 1, "HTTP/1.1, TLS" 2, "HTTP/2, TLS" 3)
set key below center horizontal reverse Left samplen 1.5 width -3        # covers no bar
width = 0.17
bar(s) = s - (s > 3 && !with_http)      # no gap for what was not measured
place(p, s) = p + (bar(s) - 2.5 - 0.5 * with_http) * width
set xrange [0.4:3.6]
set yrange [0:*]
shown = with_http ? "1 2 3 4 5" : "1 2 3 5"
plot for [s in shown] "one_call.dat" using ($2 == int(s) ? place($1, $2) : NaN):3:4:5:(width * 0.92) \
         with boxerrorbars lc rgb color[int(s)] title name[int(s)], \
     "one_call.dat" using (place($1, $2)):5:(sprintf("%.0f", $3)) with labels offset 0,0.7 font ",11" notitle

set output "many_calls.svg"
set key inside top left vertical noreverse Right samplen 4 width 0
set title "Many calls of 50 ms at once (more is better)"
set ylabel "calls per second"
set xlabel "requests in flight, or threads"
set xtics ("1" 1, "4" 4, "16" 16, "64" 64, "256" 256)
set logscale xy
set xrange [0.8:320]
set yrange [10:10000]
set grid xtics ytics
of(what) = sprintf("< grep '^%s' many_calls.dat", what)
plot x * 20 with lines lc rgb "#bbbbbb" lw 4 title "the ideal", \
     of("extension plain") using 2:3:4:5 with yerrorlines lw 2 pt 7 lc rgb color[2] title name[2], \
     of("extension http2") using 2:3:4:5 with yerrorlines lw 2 dt 2 pt 6 lc rgb color[2] title "the same, HTTP/2", \
     of("PL/Python plain") using 2:3:4:5 with yerrorlines lw 2 pt 9 lc rgb color[5] title "PL/Python, thread pool", \
     of("PL/pgSQL plain") using 2:3:4:5 with yerrorbars lw 2 pt 5 lc rgb color[6] title name[6]

set output "memory.svg"
set title "Greatest memory of the backend, 16 requests in flight"
set ylabel "MiB resident"
set xlabel "requests in one batch"
set xtics ("10" 10, "100" 100, "1,000" 1000, "10,000" 10000, "100,000" 100000)
unset logscale y
set xrange [7:150000]
set yrange [0:*]
plot "< grep ^extension growth.dat" using 2:3:4:5 with yerrorlines lw 2 pt 7 lc rgb color[2] title name[2], \
     "< grep ^array growth.dat" using 2:3:4:5 with yerrorlines lw 2 pt 6 lc rgb color[1] title "its argument alone, an array"
