# The chart of script/outage, from what report.sql has written.

set terminal svg size 760,380 font "sans-serif,13" background "#ffffff"
set output "outage.svg"
set datafile separator tab
set border 3 lc rgb "#666666"
set tics nomirror
set grid ytics lc rgb "#dddddd"
set key outside below horizontal
set title "Cheap transactions through an outage of the API (black hole)"
set ylabel "transactions per second"
set xlabel "seconds since the outage began"
set xrange [-6:25]
set yrange [0:300]          # transactions that catch up afterwards are far above

stats "outage.dat" using 4 name "outage" nooutput
set object rectangle from 0, graph 0 to outage_max, graph 1 behind fc rgb "#f3e3e1" fs solid noborder
set label "the API is out" at outage_max / 2, graph 0.95 center tc rgb "#c2544d"
array color[2] = ["#c2544d", "#0b7285"]
array name[2] = ["without the guard", "with the guard"]
# Each second's transactions are drawn at its middle.
plot for [s = 1:sides] "outage.dat" using ($1 + 0.5):(column(s + 1)) with lines lw 2 lc rgb color[s] title name[s]
