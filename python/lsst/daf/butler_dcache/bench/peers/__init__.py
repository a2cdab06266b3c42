"""Who is compared, one file each."""
