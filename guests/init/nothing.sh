# A workload that is nothing but a boot.
echo "R3:nothing:1"
