"""CrispEdit: breadth-first training along directions in which general text has little curvature."""
