# Runs the workload without anybody at the terminal, then powers off.
dmesg -n 1
echo "R3:begin:1"
sh /workload
echo "R3:end:$?"
poweroff -f
