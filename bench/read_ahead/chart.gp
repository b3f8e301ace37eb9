# The chart of script/bench --read-ahead, from what report.sql has written.

set terminal svg size 900,460 font "sans-serif,13" background "#ffffff"
set output "read_ahead.svg"
set datafile separator tab
set datafile missing ""
set border 3 lc rgb "#666666"
set tics nomirror
set grid ytics lc rgb "#dddddd"
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 noborder
set key above horizontal
set title "Rows whose calls take 50 ms (more is better)"
set ylabel "rows per second"
set logscale y
set yrange [10:10000]
set xtics rotate by 35 right noenhanced
array color[4] = ["#66a9b5", "#0b7285", "#083d4a", "#7b5ea7"]
array name[4] = ["16 in flight", "64", "256", "one by one"]
plot for [s = 1:4] "read_ahead.dat" using s + 1:xtic(1) lc rgb color[s] title name[s]
