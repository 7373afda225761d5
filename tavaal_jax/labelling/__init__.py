"""The people's wing: images, labels, requests and the loop that waits for answers."""
