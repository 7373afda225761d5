"""Files of a user's folder of images, and what is known of them."""
