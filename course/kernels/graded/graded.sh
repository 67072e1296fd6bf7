# A kernel for strangers' code (Linux, with bubblewrap): graded.sh CONNECTION_FILE
# No network, processes of its own, 6 GB of memory for each, the disk read-only but for the folder
# of the notebook, an empty /tmp, and no look at the sources, the hand-ins and the gradebook.
here=$(pwd -P)                # course/autograded/STUDENT/NN
course=${here%/autograded/*}
mkdir -p "$course/sockets"
unset JPY_PARENT_PID  # else the kernel looks for its parent, which it cannot see
export MPLCONFIGDIR=/tmp IPYTHONDIR=/tmp/ipython
exec prlimit --as=6442450944 --core=0 bwrap --die-with-parent --unshare-all \
	--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --ro-bind "$1" "$1" --tmpfs "$course" \
	--bind "$course/sockets" "$course/sockets" --bind "$here" "$here" --chdir "$here" \
	python -m ipykernel_launcher -f "$1"
