"""Files in a folder of images, and the inventory of images in them."""
