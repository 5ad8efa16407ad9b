"""Images: folders, lists, crops, resized copies, augmentation, sampling."""
